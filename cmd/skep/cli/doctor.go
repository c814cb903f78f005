package cli

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/daemon"
	"skep/cmd/skep/doctor"
)

func (a *app) doctorCommand() *cobra.Command {
	var asJSON bool
	var bootstrap []string
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "What is wrong here, and what to do about it",
		Long: `Looks at what skep needs of this computer: that it can mount, that the home is in
order, that no dead mount is left, that the disk has room, that the clock is right,
and that the peers by which the swarm is joined answer; and how the drive is, if its
daemon runs. It says what is wrong and what to do, changes nothing, and exits with 1
if something will not work.`,
		Example: `  skep doctor
  skep doctor --bootstrap /ip4/203.0.113.5/tcp/4001/p2p/12D3KooW…`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			all, err := a.examine(cmd.Context(), bootstrap)
			if err != nil {
				return err
			}
			if asJSON {
				err = a.printJSON(all)
			} else {
				a.printFindings(all)
			}
			return errors.Join(err, verdict(all))
		},
	}
	cmd.Flags().StringArrayVar(&bootstrap, "bootstrap", nil, "also see whether this peer answers; can be repeated")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for scripts")
	return cmd
}

// examine makes all checks.
func (a *app) examine(ctx context.Context, bootstrap []string) ([]doctor.Finding, error) {
	h, err := a.homeDirectory()
	if err != nil {
		return nil, err
	}
	s, _ := h.Settings() // what is wrong with them, the check of the home says
	reached, err := daemon.Reach(ctx, append(bootstrap, s.Bootstrap...))
	if err != nil {
		return nil, usageError{fmt.Errorf("bootstrap address: %w", err)}
	}
	var status control.Status
	running := func() error {
		ctx, cancel := context.WithTimeout(ctx, answerPatience)
		defer cancel()
		return control.NewClient(h.Socket()).Call(ctx, "/v1/status", daemon.StatusRequest{}, &status)
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	all := []doctor.Finding{doctor.Mounting(), doctor.Home(h), doctor.Daemon(h, running),
		doctor.Room(h, s.Offer, status.Hosting), doctor.Clock(time.Now(), reached)}
	left, _ := daemon.LastMount(h) // what cannot be read is of none
	return slices.Concat(all, doctor.Left(left), doctor.Peers(reached), doctor.Drive(status)), nil
}

// answerPatience is how long a daemon that is well may take to say how it is.
const answerPatience = 15 * time.Second

func (a *app) printFindings(all []doctor.Finding) {
	for _, f := range all {
		fmt.Fprintf(a.out, "%-7s %-9s %s\n", f.Verdict, f.What, oneLine(f.Says))
		if f.Do != "" {
			fmt.Fprintf(a.out, "%17s → %s\n", "", f.Do)
		}
	}
}

// verdict fails if something is broken.
func verdict(all []doctor.Finding) error {
	n := 0
	for _, f := range all {
		if f.Verdict == doctor.Broken {
			n++
		}
	}
	switch n {
	case 0:
		return nil
	case 1:
		return errors.New("one thing will not work")
	}
	return fmt.Errorf("%d things will not work", n)
}
