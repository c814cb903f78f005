package cli

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"skep/chunker/words"
	"skep/test/harness"
)

// Who else is on the computer can read nothing of a home.
func TestModes(t *testing.T) {
	asUser(t)
	d := alone(t)
	d.Skep(t, "mount", d.Mnt).OK(t)
	mode(t, d.Home, 0o700)
	for _, f := range []string{"keys", "settings.json", "keyring", "recovery", "control.sock", "daemon.log", "lock"} {
		mode(t, filepath.Join(d.Home, f), 0o600)
	}
	for _, dir := range []string{"files", "hosted", "packs", "state", "state/index", "state/journal"} {
		mode(t, filepath.Join(d.Home, dir), 0o700)
	}
	mode(t, d.Words, 0o600)
	d.Skep(t, "down").OK(t)
	d.Skep(t, "down").OK(t)
}

// No key is in the log of a daemon in the background, however much it tells.
func TestNoKeyInTheLog(t *testing.T) {
	swarm := harness.NewSwarm(t, harness.Options{Peers: 5})
	d := swarm.NewDevice(t)
	t.Setenv("SKEP_DEBUG", "1")
	d.Skep(t, "mount", d.Mnt).OK(t)
	write(t, d.Path("file"), "content")
	d.Sync(t)
	d.Skep(t, "down").OK(t)
	secrets := harness.NewScanner()
	secrets.AddDevice(t, d)
	keys, err := os.ReadFile(filepath.Join(d.Home, "keys"))
	must(t, err)
	if len(secrets.Find(keys)) == 0 {
		t.Fatal("the scanner does not find the keys where they are")
	}
	log, err := os.ReadFile(filepath.Join(d.Home, "daemon.log"))
	must(t, err)
	if found := secrets.Find(log); len(found) > 0 {
		t.Errorf("the log of %d bytes tells %q", len(log), found)
	}
}

// Words that are there already are not written over, nor is a home.
func TestInitTwice(t *testing.T) {
	dir := harness.Dir(t)
	home, file := filepath.Join(dir, "home"), filepath.Join(dir, "words")
	write(t, file, "my other words")
	harness.Skep(t, "init", "--home", home, "--words-file", file).Fails(t, 1, file)
	has(t, file, "my other words")
	absent(t, home)
	must(t, os.Remove(file))
	harness.Skep(t, "init", "--home", home, "--words-file", file).OK(t)
	keys, err := os.ReadFile(filepath.Join(home, "keys"))
	must(t, err)
	harness.Skep(t, "init", "--home", home, "--words-file", file+"2").Fails(t, 1, home, "--home")
	absent(t, file+"2")
	harness.Skep(t, "recover", "--home", home, "--words-file", file, "--bootstrap", goodAddr).Fails(t, 1, home, "--home")
	harness.Skep(t, "peer", "--home", home).Fails(t, 1, "skep mount")
	has(t, filepath.Join(home, "keys"), string(keys))
	harness.Skep(t, "init", "--home", filepath.Join(file, "below-a-file")).Fails(t, 1, "not a directory")
	harness.Skep(t, "init", "--home", home+"3", "--words-file", dir+"/no/such/dir").Fails(t, 1, "no such file or directory")
	absent(t, home+"3")
}

// A directory that somebody has things in is not made a home, and stays as it is; a
// disk that is there for one becomes it.
func TestInitAmongOtherThings(t *testing.T) {
	dir := harness.Dir(t)
	words := filepath.Join(dir, "words")
	write(t, words, string(harness.NewWords()))
	full := filepath.Join(dir, "full")
	write(t, filepath.Join(full, "photo"), "mine")
	must(t, os.Chmod(full, 0o755))
	for _, args := range [][]string{{"init", "--words-file", words + "2"}, {"recover", "--words-file", words, "--bootstrap", goodAddr}, {"peer"}} {
		harness.Skep(t, append(args, "--home", full)...).Fails(t, 1, full, "photo", "--home")
		mode(t, full, 0o755)
		has(t, filepath.Join(full, "photo"), "mine")
		absent(t, words+"2")
		if entries, err := os.ReadDir(full); err != nil || len(entries) != 1 {
			t.Errorf("%v: %v, %v", args, entries, err)
		}
	}
	disk := filepath.Join(dir, "disk")
	must(t, os.MkdirAll(filepath.Join(disk, "lost+found"), 0o755))
	harness.Skep(t, "init", "--home", disk, "--words-file", filepath.Join(disk, "words")).OK(t)
	mode(t, disk, 0o700)
}

// What is there and cannot be used as a home is called what it is.
func TestHomeThatIsNone(t *testing.T) {
	asUser(t)
	dir := harness.Dir(t)
	file := filepath.Join(dir, "file")
	write(t, file, "mine")
	must(t, os.Chmod(file, 0o600))
	own := filepath.Join(dir, "own")
	must(t, os.Mkdir(own, 0o700))
	tells := func(home string, parts ...string) {
		t.Helper()
		for _, args := range []string{"status", "mount " + dir, "init --words-file " + dir + "/new"} {
			harness.Skep(t, append([]string{"--home", home}, strings.Fields(args)...)...).Fails(t, 1, append(parts, home)...)
		}
		r := harness.Skep(t, "--home", home, "doctor")
		r.Fails(t, 1)
		says(t, r.Stdout, home+" "+parts[0])
	}
	tells(file, "is not a directory", "--home")
	tells(filepath.Join(file, "below"), "is not a directory", "--home")
	if os.Geteuid() != 0 { // who may do anything
		must(t, os.Chmod(own, 0o500))
		tells(own, "is yours, but has mode 0500", "chmod 700")
	}
	absent(t, dir+"/new")
}

// The command that comes next can be pasted into a shell, whatever the paths are.
func TestNextCommand(t *testing.T) {
	dir := filepath.Join(harness.Dir(t), "it's mine")
	pass, mnt := filepath.Join(dir, "pass phrase"), filepath.Join(dir, "mnt")
	write(t, pass, "correct horse\n")
	must(t, os.Mkdir(mnt, 0o755))
	home := filepath.Join(dir, "my home")
	out := harness.Skep(t, "--home", home, "--passphrase-file", pass, "init", "--offer", "0", "--words-file", filepath.Join(dir, "words")).OK(t)
	_, next, _ := strings.Cut(out, "\n\n  skep ")
	next = strings.Replace(strings.TrimSpace(next), " DIR", ` "$2"`, 1)
	harness.Run(t, exec.Command("sh", "-c", `"$1" `+next, "sh", harness.Binary(), mnt)).OK(t)
	write(t, filepath.Join(mnt, "file"), "content")
	harness.Skep(t, "--home", home, "down").OK(t)
	absent(t, filepath.Join(mnt, "file"))
}

// The words are shown when no file is named for them, once, all of them.
func TestWordsAreShown(t *testing.T) {
	home := filepath.Join(harness.Dir(t), "home")
	out := harness.Skep(t, "init", "--home", home).OK(t)
	var shown []string
	for _, line := range strings.Split(out, "\n") {
		if f := strings.Fields(line); len(f) == 2 && strings.Trim(f[0], "0123456789") == "" {
			shown = append(shown, f[1])
		}
	}
	if _, err := words.Parse(strings.Join(shown, " ")); err != nil {
		t.Errorf("the words that were shown: %v", err)
	}
}

func TestSkepHome(t *testing.T) {
	dir := harness.Dir(t)
	for name, env := range map[string][]string{
		"named":   {"SKEP_HOME=" + dir + "/named"},
		"xdg":     {"SKEP_HOME=", "XDG_STATE_HOME=" + dir + "/state", "HOME=" + dir + "/user"},
		"default": {"SKEP_HOME=", "XDG_STATE_HOME=", "HOME=" + dir + "/user"},
	} {
		want := map[string]string{"named": "named", "xdg": "state/skep", "default": "user/.local/state/skep"}[name]
		cmd := skep("init", "--words-file", filepath.Join(dir, name+".words"))
		cmd.Env = append(os.Environ(), env...)
		harness.Run(t, cmd).OK(t)
		mode(t, filepath.Join(dir, want), 0o700)
		mode(t, filepath.Join(dir, want, "keys"), 0o600)
	}
	cmd := skep("status")
	cmd.Env = []string{"SKEP_HOME=", "HOME="}
	harness.Run(t, cmd).Fails(t, 1, "SKEP_HOME", "--home")
}

// A path that is too long for a socket is told before something fails later.
func TestLongHome(t *testing.T) {
	home := filepath.Join(harness.Dir(t), strings.Repeat("long", 30))
	r := harness.Skep(t, "init", "--home", home, "--words-file", filepath.Join(harness.Dir(t), "words"))
	r.Fails(t, 1, "too long", "--home")
	absent(t, home)
}

func TestPassphrase(t *testing.T) {
	dir := harness.Dir(t)
	right, wrong, empty := filepath.Join(dir, "right"), filepath.Join(dir, "wrong"), filepath.Join(dir, "empty")
	write(t, right, "correct horse\n")
	write(t, wrong, "battery staple\n")
	write(t, empty, "\n")
	swarm := harness.NewSwarm(t, harness.Options{})
	d := swarm.NewDevice(t, "--passphrase-file", right)
	for name, tt := range map[string]struct {
		args []string
		says string
	}{
		"none":    {nil, "--passphrase-file"},
		"wrong":   {[]string{"--passphrase-file", wrong}, "wrong passphrase"},
		"empty":   {[]string{"--passphrase-file", empty}, "empty"},
		"no file": {[]string{"--passphrase-file", dir + "/nothing"}, "nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			d.Skep(t, append(tt.args, "mount", d.Mnt)...).Fails(t, 1, tt.says)
			d.Skep(t, append(tt.args, "mount", "--foreground", d.Mnt)...).Fails(t, 1, tt.says)
		})
	}
	d.Skep(t, "--passphrase-file", right, "mount", d.Mnt).OK(t)
	write(t, d.Path("file"), "content")
	d.Skep(t, "status").OK(t) // the daemon has the keys
	d.Skep(t, "down").OK(t)
}
