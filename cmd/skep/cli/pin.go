package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"skep/cmd/skep/control"
	"skep/cmd/skep/say"
)

func (a *app) pinCommand() *cobra.Command {
	var remove, list, asJSON bool
	cmd := &cobra.Command{
		Use:   "pin PATH…",
		Short: "Keep files and folders on this device",
		Long: `Keeps the content of files on this device, and of all that is or comes below
folders: what is not here is fetched, and never let go of. The same is done by the
extended attribute user.skep.pin (1 pins, 0 or removing it unpins; below a pinned
folder it reads "inherited"). Pins belong to this device, not to the drive.`,
		Example: `  skep pin ~/drive/music
  skep pin --list
  skep pin --remove ~/drive/music
  setfattr -n user.skep.pin -v 1 ~/drive/thesis.tex`,
		RunE: func(cmd *cobra.Command, paths []string) error {
			if list == (len(paths) > 0) || list && remove {
				return usageError{errors.New("say what: skep pin PATH…, skep pin --remove PATH…, or skep pin --list")}
			}
			var out control.Pins
			if err := a.call(cmd.Context(), "/v1/pin", control.Pin{Paths: absolute(paths), Remove: remove, List: list}, &out); err != nil {
				return err
			}
			if asJSON {
				return a.printJSON(out)
			}
			a.printPins(out, remove)
			return nil
		},
	}
	f := cmd.Flags()
	f.BoolVar(&remove, "remove", false, "let them be let go of again")
	f.BoolVar(&list, "list", false, "tell what is pinned")
	f.BoolVar(&asJSON, "json", false, "for scripts")
	return cmd
}

func (a *app) printPins(out control.Pins, removed bool) {
	var bytes int64
	for _, p := range out.Pins {
		bytes += p.Bytes
		switch {
		case removed:
			fmt.Fprintf(a.out, "%s: no longer pinned\n", say.Path(p.Path))
		case p.Here < p.Bytes:
			fmt.Fprintf(a.out, "%s: pinned; %s, %s, of which %s are here and the rest is being fetched\n", say.Path(p.Path), say.Count(p.Files, "file"), say.Bytes(p.Bytes), say.Bytes(p.Here))
		default:
			fmt.Fprintf(a.out, "%s: pinned; %s, %s, all here\n", say.Path(p.Path), say.Count(p.Files, "file"), say.Bytes(p.Bytes))
		}
	}
	if !removed && bytes > out.Room {
		fmt.Fprintf(a.out, "These are %s, but the cache has room for %s: not all of it can stay here.\nGive it more with skep mount --cache SIZE, or unpin something.\n", say.Bytes(bytes), say.Bytes(out.Room))
	}
}
