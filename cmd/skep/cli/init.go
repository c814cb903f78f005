package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"skep/chunker/words"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/home"
	"skep/cmd/skep/say"
	"skep/fs/mount"
)

func (a *app) initCommand() *cobra.Command {
	var flags peerFlags
	var wordsFile string
	var cache cacheFlag
	cmd := &cobra.Command{
		Use:   "init",
		Short: "Make a new drive",
		Long: `Makes a new identity and a new, empty drive in the home, and shows the recovery
words: with them, and nothing else, the drive comes back when this computer is
lost. They are shown once. Write them down, on paper.`,
		Example: `  skep init --bootstrap /ip4/203.0.113.5/tcp/4001/p2p/12D3KooW…
  skep init --words-file ~/words.txt --offer 50G`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.runInit(cmd, flags, cache, wordsFile)
		},
	}
	flags.add(cmd)
	cmd.Flags().Var(&cache, "cache", cacheUsage)
	cmd.Flags().StringVar(&wordsFile, "words-file", "", "write the recovery words to this new file instead of showing them")
	return cmd
}

func (a *app) runInit(cmd *cobra.Command, flags peerFlags, cache cacheFlag, wordsFile string) error {
	h, s, err := a.newHome(cmd, flags, cache)
	if err != nil {
		return err
	}
	pass, err := a.passphrase()
	if err != nil {
		return err
	}
	var file *os.File
	if wordsFile != "" {
		// Before anything is made: words that cannot be kept are of no use.
		if file, err = os.OpenFile(wordsFile, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600); err != nil {
			return fmt.Errorf("file for the words: %w", err)
		}
		defer file.Close()
	}
	// The words come first: of a drive that is there, somebody is to have them.
	shown := false
	_, err = daemon.Init(h, s, pass, func(e words.Entropy) (err error) {
		if file == nil {
			err = a.showWords(e)
		} else {
			_, err = fmt.Fprintln(file, e.Phrase())
			err = errors.Join(err, file.Sync())
			syncName(wordsFile)
		}
		if err != nil {
			return fmt.Errorf("the recovery words cannot be kept: %w; no drive was made", err)
		}
		shown = true
		return nil
	})
	switch {
	case err != nil && file != nil:
		return errors.Join(err, os.Remove(wordsFile))
	case err != nil && shown:
		return fmt.Errorf("%w; no drive was made, and the words above are of none", err)
	case err != nil:
		return err
	case file != nil:
		fmt.Fprintf(a.out, "The drive is made. Its recovery words are in %s: keep them safe, and off this computer.\n", wordsFile)
	default:
		fmt.Fprint(a.out, "The drive is made.\n\n")
	}
	a.tellAlone(unreached(cmd.Context(), s.Bootstrap))
	a.tellOffer(s.Offer)
	if len(s.Bootstrap) == 0 {
		fmt.Fprint(a.out, "It knows no peer yet: what is written stays on this computer until it is mounted with --bootstrap ADDRESS.\n\n")
	}
	fmt.Fprintf(a.out, "Now mount it:\n\n  skep%s mount DIR\n", a.sameFlags())
	return nil
}

// syncName makes the name of a new file survive power loss, where directories can be
// flushed.
func syncName(path string) {
	if dir, err := os.Open(filepath.Dir(path)); err == nil {
		_ = dir.Sync()
		_ = dir.Close()
	}
}

// tellOffer says what others may use of this disk.
func (a *app) tellOffer(offer int64) {
	if offer > 0 {
		fmt.Fprintf(a.out, "While its daemon runs, others may keep up to %s on this disk (--offer says how much).\n\n", say.Bytes(offer))
	}
}

// reachPatience is how long the peers that a new drive is to join by may take to
// answer.
const reachPatience = 3 * time.Second

// unreached is why no peer answers at some addresses; empty if one does, or there are
// none, or the caller has gone.
func unreached(ctx context.Context, addrs []string) (why string) {
	timed, cancel := context.WithTimeout(ctx, reachPatience)
	defer cancel()
	reached, err := daemon.Reach(timed, addrs)
	switch {
	case ctx.Err() != nil:
		return "" // nobody wants to know any more
	case err != nil:
		return err.Error()
	}
	for _, r := range reached {
		if r.Err == nil {
			return ""
		}
		why = r.Addr + ": " + r.Err.Error()
	}
	return why
}

// newHome is where a home is to be made, with its settings as the flags have them.
func (a *app) newHome(cmd *cobra.Command, flags peerFlags, cache cacheFlag) (home.Dir, home.Settings, error) {
	h, err := a.home()
	if err != nil {
		return h, home.Settings{}, err
	}
	flags.fit(cmd, h)
	s, err := flags.settings()
	if err == nil {
		err = h.Vacant()
	}
	s.Cache = cache.limit
	return h, s, err
}

// showWords shows the recovery words. An error says that nobody can have seen them all.
func (a *app) showWords(e words.Entropy) error {
	var b strings.Builder
	b.WriteString("These are the recovery words of the new drive. Write them down, in this order:\n\n")
	for i, w := range e.Words() {
		fmt.Fprintf(&b, "  %2d  %s\n", i+1, w)
	}
	b.WriteString("\nWhoever has them has the drive. Without them it is gone when this computer is.\nThey are not shown again.\n\n")
	_, err := fmt.Fprint(a.out, b.String())
	return err
}

// sameFlags are what later commands need to find the same home, and to open its keys.
func (a *app) sameFlags() (flags string) {
	if a.homeDir != "" {
		flags += " --home " + mount.Quote(a.homeDir)
	}
	if a.passphraseFile != "" {
		flags += " --passphrase-file " + mount.Quote(a.passphraseFile)
	}
	return flags
}
