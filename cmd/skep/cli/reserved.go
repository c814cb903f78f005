package cli

import (
	"fmt"

	"github.com/spf13/cobra"
)

// reserved are commands whose names are taken, so that scripts and people learn
// what they will be for; none of them does anything yet.
var reserved = []struct{ name, will string }{
	{"swarm", "invite others to a closed swarm, and join one"},
	{"devices", "list the devices of the drive and remove one"},
	{"share", "share a folder with other people"},
	{"id", "show who you are to other people"},
	{"policy", "say in which regions and domains a folder may be stored"},
	{"snapshot", "keep the drive as it is now"},
	{"history", "list how a file was before"},
	{"restore", "bring a file back as it was before"},
	{"words", "exchange the recovery words for new ones"},
	{"credit", "show what you give to the swarm and take from it"},
	{"publish", "give a folder to everybody, as plain UnixFS"},
	{"get", "fetch what somebody has published"},
}

// notYetError says that a command does not do anything yet.
type notYetError struct{ name, will string }

func (e notYetError) Error() string {
	return fmt.Sprintf("%s is not there yet: it will %s", e.name, e.will)
}

// addReserved adds the reserved commands that root does not have. They are in no
// help text.
func addReserved(root *cobra.Command) {
	there := map[string]bool{}
	for _, c := range root.Commands() {
		there[c.Name()] = true
	}
	for _, r := range reserved {
		if there[r.name] {
			continue
		}
		root.AddCommand(&cobra.Command{
			Use:                r.name,
			Short:              "Not there yet: will " + r.will,
			Hidden:             true,
			DisableFlagParsing: true, // whatever is said, the answer is the same
			RunE:               func(*cobra.Command, []string) error { return notYetError{r.name, r.will} },
		})
	}
}
