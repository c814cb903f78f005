package cli

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"skep/chunker/keyring"
	"skep/chunker/secret"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/home"
)

func (a *app) peerCommand() *cobra.Command {
	var flags peerFlags
	cmd := &cobra.Command{
		Use:   "peer",
		Short: "Store shards for others, without a drive of one's own",
		Long: `Runs a storage peer in the foreground. It prints its full addresses, one a line,
when it is ready. Others give one that they can reach as --bootstrap: 127.0.0.1 is
for this computer alone, and at an address of a home network it answers outside
only if the router forwards the port. What it stores is sealed; it cannot read it.
The first run makes the home; later ones keep its identity and settings, and take
those flags that are given.`,
		Example: `  skep peer --offer 100G --listen /ip4/0.0.0.0/tcp/4001
  skep peer --offer 1T --region DE-BE --bootstrap /ip4/203.0.113.5/tcp/4001/p2p/12D3KooW…`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			h, err := a.home()
			if err != nil {
				return err
			}
			if err := a.preparePeer(cmd, h, flags); err != nil {
				return err
			}
			keys, err := a.unlock(cmd.Context(), h)
			if err != nil {
				return err
			}
			d, err := daemon.Open(cmd.Context(), h, keys, nil, daemon.NewLog(os.Stderr))
			if err != nil {
				return err
			}
			ran := make(chan error, 1)
			go func() { ran <- d.Run(cmd.Context()) }()
			select {
			case <-d.Answers():
			case err := <-ran:
				return err
			}
			for _, addr := range d.Addrs() {
				fmt.Fprintln(a.out, addr)
			}
			return <-ran
		},
	}
	flags.add(cmd)
	return cmd
}

// preparePeer makes the home of a peer, or brings its settings up to date with
// the flags that were given.
func (a *app) preparePeer(cmd *cobra.Command, h home.Dir, flags peerFlags) error {
	flags.fit(cmd, h)
	given, err := flags.settings()
	if err != nil {
		return err
	}
	if !h.Exists() {
		if err := h.Vacant(); err != nil {
			return err
		}
		pass, err := a.passphrase()
		if err != nil {
			return err
		}
		release, err := daemon.BeginHome(h, given.Offer)
		if err != nil {
			return err
		}
		defer release()
		return h.Create(given, keyring.Local{Device: secret.New()}, pass, nil)
	}
	return changePeer(cmd, h, given)
}

// changePeer takes the flags that were given into the settings of a peer's home. No
// daemon may serve it.
func changePeer(cmd *cobra.Command, h home.Dir, given home.Settings) error {
	release, err := h.Lock()
	if err != nil {
		return err
	}
	defer release()
	s, err := h.Settings()
	if err != nil {
		return err
	}
	if s.Drive != "" {
		return errors.New("this home has a drive: use skep mount; it stores for others, too")
	}
	changed := cmd.Flags().Changed
	if changed("offer") && given.Offer != s.Offer {
		if err := daemon.CheckOffer(h, given.Offer); err != nil {
			return err
		}
	}
	for name, set := range map[string]func(){
		"listen":     func() { s.Listen = given.Listen },
		"bootstrap":  func() { s.Bootstrap = given.Bootstrap },
		"offer":      func() { s.Offer = given.Offer },
		"region":     func() { s.Region = given.Region },
		"domain":     func() { s.Domain = given.Domain },
		"dead-after": func() { s.DeadAfter = given.DeadAfter },
	} {
		if changed(name) {
			set()
		}
	}
	return h.SaveSettings(s)
}
