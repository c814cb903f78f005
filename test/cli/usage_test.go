package cli

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"skep/test/harness"
)

const goodAddr = "/ip4/127.0.0.1/tcp/4001/p2p/12D3KooWRqS77wqgHaSrYv51NjonrF4oZYwtVc1ckfnvhHUiHoNq"

// What makes no sense is refused before anything is made.
func TestUsage(t *testing.T) {
	base := harness.Dir(t)
	for name, tt := range map[string]struct {
		args string
		says string // separated by |
	}{
		"unknown command":       {"frobnicate", "frobnicate"},
		"misspelt command":      {"stauts", `unknown command "stauts" for "skep"; Did you mean this? status`},
		"unknown flag":          {"mount --frob x", "--frob"},
		"mount nowhere":         {"mount", "skep mount --help"},
		"mount at two places":   {"mount a b", "skep mount --help"},
		"umount nothing":        {"umount", "skep umount --help"},
		"sync something":        {"sync x", "skep sync --help"},
		"sync for a word":       {"sync --timeout soon", "soon"},
		"sync for less":         {"sync --timeout -1s", "-1s"},
		"recover for no time":   {"recover --timeout 0s", "--timeout"},
		"complete in no shell":  {"completion", "bash"},
		"complete in ksh":       {"completion ksh", "bash"},
		"demo of the undead":    {"demo --dead-after -1s", "-1s"},
		"offer a word":          {"init --offer lots", "lots|10G"},
		"offer less than none":  {"init --offer -5G", "-5G"},
		"region in small":       {"init --region germany", "germany|DE"},
		"too short a time":      {"init --dead-after 1ms", "1ms"},
		"bootstrap a word":      {"init --bootstrap nonsense", "nonsense"},
		"bootstrap nobody":      {"init --bootstrap /ip4/127.0.0.1/tcp/4001", "/ip4/127.0.0.1/tcp/4001"},
		"bootstrap nobody new":  {"init --bootstrap " + goodAddr + " --bootstrap /dns4/example.org", "/dns4/example.org"},
		"listen on a word":      {"init --listen nonsense", "nonsense"},
		"mount by a word":       {"mount --bootstrap nonsense x", "nonsense"},
		"peer bootstrap a word": {"peer --bootstrap nonsense", "nonsense"},
		"peer listen on a word": {"peer --listen nonsense", "nonsense"},
		"peer in a region":      {"peer --region xx", "xx"},
		"recover nothing":       {"recover --bootstrap " + goodAddr, "--words-file"},
		"recover from nobody":   {"recover --words-file " + base + "/words", "--bootstrap"},
		"recover from a word":   {"recover --words-file " + base + "/words --bootstrap nonsense", "nonsense"},
		"repair what":           {"repair", "pause|resume|status"},
		"repair that":           {"repair all", "all"},
		"demo of none":          {"demo --peers 0", "--peers"},
		"demo of thousands":     {"demo --peers 5000", "--peers"},
	} {
		t.Run(name, func(t *testing.T) {
			home := filepath.Join(base, strings.ReplaceAll(name, " ", "-"))
			r := harness.Skep(t, append([]string{"--home", home}, strings.Fields(tt.args)...)...)
			r.Fails(t, 2, strings.Split(tt.says, "|")...)
			absent(t, home)
		})
	}
}

// Without a daemon, commands say how to start it; without a home, how to make one.
func TestNoDaemon(t *testing.T) {
	base := harness.Dir(t)
	home := filepath.Join(base, "home")
	harness.Skep(t, "init", "--home", home, "--words-file", home+".words").OK(t)
	for _, args := range []string{"status", "status --json", "sync", "umount " + base, "pin --list", "repair pause", "repair status"} {
		t.Run(args, func(t *testing.T) {
			r := harness.Skep(t, append([]string{"--home", home}, strings.Fields(args)...)...)
			r.Fails(t, 1, "no skep daemon is running", "skep mount DIR")
			r = harness.Skep(t, append([]string{"--home", base + "/none"}, strings.Fields(args)...)...)
			r.Fails(t, 1, "there is no skep home", base+"/none", "skep init", "skep recover")
		})
	}
	harness.Skep(t, "--home", home, "down").OK(t) // it is down
	harness.Skep(t, "--home", base+"/none", "down").OK(t)
}

// A command whose output could not be written fails.
func TestOutputIsFull(t *testing.T) {
	d := alone(t)
	d.MountAlone(t)
	for _, args := range []string{"status", "status --json", "repair status", "pin --list --json", "doctor", "--help", "help mount", "--version", "completion bash"} {
		t.Run(args, func(t *testing.T) {
			cmd := exec.Command("sh", append([]string{"-c", `exec "$@" >/dev/full`, "sh", harness.Binary(), "--home", d.Home}, strings.Fields(args)...)...)
			harness.Run(t, cmd).Fails(t, 1, "no space left on device")
		})
	}
}

// commands are all that people are shown.
var commands = []string{"demo", "init", "recover", "peer", "mount", "umount", "down", "sync", "status", "repair", "fsck", "doctor"}

func TestHelp(t *testing.T) {
	top := harness.Skep(t, "--help").OK(t)
	for _, c := range commands {
		if !strings.Contains(top, "\n  "+c+" ") {
			t.Errorf("skep --help does not list %s", c)
		}
		help := harness.Skep(t, c, "--help").OK(t)
		for _, part := range []string{"Usage:\n  skep " + c, "Examples:\n  skep "} {
			if !strings.Contains(help, part) {
				t.Errorf("skep %s --help lacks %q", c, part)
			}
		}
		narrow(t, c, help)
	}
	narrow(t, "", top)
	for _, c := range []string{"pause", "resume", "status"} {
		if help := harness.Skep(t, "repair", c, "--help").OK(t); !strings.Contains(help, "Examples:\n  skep repair "+c) {
			t.Errorf("skep repair %s --help: %s", c, help)
		}
	}
	if help := harness.Skep(t, "help").OK(t); help != top || !strings.Contains(top, "Exit status: 0 done; 1 ") {
		t.Errorf("skep help: %s", help)
	}
	if help := harness.Skep(t, "help", "mount").OK(t); help != harness.Skep(t, "mount", "--help").OK(t) {
		t.Errorf("skep help mount: %s", help)
	}
	terms := harness.Skep(t, "help", "terms").OK(t)
	says(t, terms, "suspect", "dead", "Overtaken", "lost")
	says(t, top, "skep terms")
	narrow(t, "terms", terms)
	harness.Skep(t, "help", "frobnicate").Fails(t, 2, "frobnicate", "skep help")
	if v := harness.Skep(t, "--version").OK(t); !strings.HasPrefix(v, "skep version ") {
		t.Errorf("--version says %q", v)
	}
}

// narrow checks that a help text fits onto a terminal.
func narrow(t *testing.T, about, help string) {
	t.Helper()
	for l := range strings.Lines(help) {
		if n := utf8.RuneCountInString(strings.TrimRight(l, "\n")); n > 90 {
			t.Errorf("help about %q has a line of %d columns: %s", about, n, l)
		}
	}
}

// What is reserved for later says so, with an exit status of its own, whatever
// it is given; people are not shown it.
func TestReserved(t *testing.T) {
	top := harness.Skep(t, "--help").OK(t)
	for _, args := range []string{"swarm invite", "swarm join x --y", "devices", "share x", "id", "policy", "snapshot", "history x",
		"restore x", "words", "credit", "publish x", "get --help"} {
		name, _, _ := strings.Cut(args, " ")
		r := harness.Skep(t, strings.Fields(args)...)
		r.Fails(t, 3, name+" is not there yet")
		if strings.Count(strings.TrimSpace(r.Stderr), "\n") > 0 {
			t.Errorf("skep %s says more than one line: %q", args, r.Stderr)
		}
		if strings.Contains(top, "\n  "+name+" ") {
			t.Errorf("skep --help lists %s", name)
		}
	}
}

// The completions are made, and shells can read them.
func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish"} {
		script := harness.Skep(t, "completion", shell).OK(t)
		if !strings.Contains(script, "skep") {
			t.Errorf("completion for %s: %d bytes", shell, len(script))
		}
		if _, err := exec.LookPath(shell); err != nil || shell == "fish" {
			continue
		}
		check := exec.Command(shell, "-n")
		check.Stdin = strings.NewReader(script)
		harness.Run(t, check).OK(t)
	}
	if words := harness.Skep(t, "__complete", "re").OK(t); !strings.Contains(words, "recover") || !strings.Contains(words, "repair") {
		t.Errorf("completions of \"re\": %s", words)
	}
	for _, tt := range []struct {
		line []string
		want string // what shells are to offer: nothing, folders, files, or a word
	}{{[]string{"sync", ""}, ":4"}, {[]string{"mount", ""}, ":16"}, {[]string{"status", ""}, ":0"},
		{[]string{"repair", "p"}, "pause"}, {[]string{"help", "rep"}, "repair"}, {[]string{"status", "--j"}, "--json"}} {
		if words := harness.Skep(t, append([]string{"__complete"}, tt.line...)...).OK(t); !strings.Contains(words, tt.want) {
			t.Errorf("completions after %q: %s", tt.line, words)
		}
	}
}
