package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/pprof"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"skep/cmd/skep/home"
)

// A kind of work, and how it is known: the functions, of those on a stack, the
// innermost first, by which the first rule that fits decides.
type kind struct {
	name string
	in   *regexp.Regexp // somewhere on the stack
	at   *regexp.Regexp // the innermost function; nil for any
}

var inKernel = regexp.MustCompile(`Syscall6$|^syscall\.|runtime/internal/syscall|^runtime\.(epollwait|futex|usleep|write1|read)$`)

// kinds are what the processor's time goes to, the more special before the more
// general.
var kinds = []kind{
	{profiles, regexp.MustCompile(`^(runtime|net/http)/pprof`), nil},
	{"the directory", regexp.MustCompile(`go-libp2p-kad-dht|^skep/net/dht`), nil},
	{"cipher", regexp.MustCompile(`^crypto/.*(aes|gcm|chacha|ghash)`), regexp.MustCompile(`^crypto/`)},
	{"hash", regexp.MustCompile(`blake3|sha256`), nil},
	{"coding", regexp.MustCompile(`reedsolomon`), nil},
	{"compression", regexp.MustCompile(`compress/(zstd|huff0|fse)|block\.(looksRandom|bitsPerByte)`), nil},
	{"collecting garbage", regexp.MustCompile(`^runtime\.(gcBgMarkWorker|gcAssistAlloc|bgsweep|bgscavenge|gcStart|gcMarkTermination|sweepone)`), nil},
	{"allocating and clearing memory", regexp.MustCompile(`^runtime\.(mallocgc|growslice|makeslice|newobject|memclr|sysUnused|sysUsed)`), nil},
	{"copying in memory", regexp.MustCompile(`^runtime\.memmove`), regexp.MustCompile(`^runtime\.memmove`)},
	{"kernel: the mount", regexp.MustCompile(`^skep/fs/loop`), inKernel},
	{"kernel: network", regexp.MustCompile(`^net\.\(\*(netFD|conn|UDPConn)|^runtime\.netpoll`), inKernel},
	{"kernel: files", regexp.MustCompile(`^os\.|unix\.|^internal/poll\.`), inKernel},
	{"scheduling", regexp.MustCompile(`^runtime\.(mcall|park_m|schedule|findRunnable|goexit0|mstart|sysmon|gopreempt_m|ready|goready|systemstack|newproc|asyncPreempt)`), regexp.MustCompile(`^runtime\.`)},
}

// profiles are no part of the work.
const profiles = "taking profiles"

// kindOf says what a stack is spent on, the innermost function first.
func kindOf(stack []string) string {
	for _, k := range kinds {
		if (k.at == nil || k.at.MatchString(stack[0])) && slices.ContainsFunc(stack, k.in.MatchString) {
			return k.name
		}
	}
	return "the rest"
}

// profiling takes profiles of processes, into a directory, until it is ended.
type profiling struct {
	dir string
	end func() error
}

// profileSelf begins to take a profile of this process.
func profileSelf() (*profiling, error) {
	p, err := newProfiling()
	if err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(p.dir, "")
	if err != nil {
		return nil, err
	}
	p.end = func() error {
		pprof.StopCPUProfile()
		return f.Close()
	}
	return p, pprof.StartCPUProfile(f)
}

func newProfiling() (*profiling, error) {
	dir, err := os.MkdirTemp("", "skep-profile-")
	return &profiling{dir: dir}, err
}

// profile begins to take profiles, a second each, of the processes that serve some
// homes.
func profile(homes ...string) (*profiling, error) {
	p, err := newProfiling()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	var all errgroup.Group
	for _, h := range homes {
		all.Go(func() error { return takeProfiles(ctx, h, p.dir) })
	}
	p.end = func() error {
		cancel()
		return all.Wait()
	}
	return p, nil
}

// takeProfiles puts profiles into a directory until ctx ends.
func takeProfiles(ctx context.Context, homeDir, into string) error {
	ask := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", home.Dir(homeDir).Socket())
	}}}
	for ctx.Err() == nil {
		resp, err := ask.Get("http://skep/debug/pprof/profile?seconds=1")
		if err != nil {
			return err
		}
		b, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return fmt.Errorf("profile: %s: %w", resp.Status, err)
		}
		f, err := os.CreateTemp(into, "")
		if err != nil {
			return err
		}
		_, err = f.Write(b)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return nil
}

// shares ends the profiling, and tells what the processor's time went to, the
// most first.
func (p *profiling) shares(ctx context.Context) (string, error) {
	defer os.RemoveAll(p.dir)
	if err := p.end(); err != nil {
		return "", err
	}
	files, err := filepath.Glob(filepath.Join(p.dir, "*"))
	if err != nil {
		return "", err
	}
	out, err := exec.CommandContext(ctx, "go", append([]string{"tool", "pprof", "-traces"}, files...)...).Output()
	if err != nil {
		return "", fmt.Errorf("go tool pprof: %w", err)
	}
	spent, err := byKind(bytes.NewReader(out))
	return inWords(spent), err
}

// byKind adds up the stacks that "go tool pprof -traces" prints.
func byKind(r io.Reader) (map[string]time.Duration, error) {
	spent := map[string]time.Duration{}
	var took time.Duration
	var stack []string
	end := func() {
		if len(stack) > 0 {
			spent[kindOf(stack)] += took
		}
		took, stack = 0, nil
	}
	lines, begun := bufio.NewScanner(r), false
	for lines.Scan() {
		line := strings.TrimSuffix(strings.TrimSpace(lines.Text()), " (inline)")
		switch fields := strings.Fields(line); {
		case strings.HasPrefix(line, "-----------+"):
			end()
			begun = true
		case !begun || len(fields) == 0:
		case len(fields) == 2 && stack == nil:
			d, err := time.ParseDuration(fields[0])
			if err != nil {
				return nil, fmt.Errorf("profile: %q: %w", line, err)
			}
			took, stack = d, fields[1:]
		case len(fields) == 1 && stack != nil:
			stack = append(stack, fields[0])
		}
	}
	end()
	return spent, lines.Err()
}

// inWords lists shares of a hundredth and more.
func inWords(spent map[string]time.Duration) string {
	delete(spent, profiles)
	var all time.Duration
	for _, d := range spent {
		all += d
	}
	var parts []string
	for _, name := range slices.SortedFunc(maps.Keys(spent), func(a, b string) int { return cmp.Compare(spent[b], spent[a]) }) {
		if share := 100 * spent[name].Seconds() / all.Seconds(); share >= 1 {
			parts = append(parts, fmt.Sprintf("%s %.0f %%", name, share))
		}
	}
	return strings.Join(parts, ", ")
}
