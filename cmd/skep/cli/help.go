package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

// exitStatuses closes the general help.
const exitStatuses = `

Exit status: 0 done; 1 it was tried and did not work, the last line on standard
error says why; 2 what was asked for makes no sense; 3 it is not there yet.`

// helpWidth is how many columns a line of help has at most.
const helpWidth = 90

// narrow is a template of help texts that wraps what it says of flags.
func narrow(template string) string {
	return strings.ReplaceAll(template, ".FlagUsages ", fmt.Sprintf(".FlagUsagesWrapped %d ", helpWidth))
}

// helpCommand shows the help of a command, and fails for what is none.
func helpCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "help [COMMAND]",
		Short:   "Help about any command, or about a topic",
		Example: "  skep help mount\n  skep help terms",
		RunE: func(cmd *cobra.Command, topic []string) error {
			about, rest, err := cmd.Root().Find(topic)
			if err != nil || len(rest) > 0 {
				return usageError{fmt.Errorf("there is no command %q; skep help lists them", strings.Join(topic, " "))}
			}
			about.InitDefaultHelpFlag()
			about.InitDefaultVersionFlag()
			return about.Help()
		},
		ValidArgsFunction: func(cmd *cobra.Command, topic []string, _ string) ([]string, cobra.ShellCompDirective) {
			var names []string
			if about, _, err := cmd.Root().Find(topic); err == nil {
				for _, c := range about.Commands() {
					if c.IsAvailableCommand() || c.IsAdditionalHelpTopicCommand() {
						names = append(names, c.Name()+"\t"+c.Short)
					}
				}
			}
			return names, cobra.ShellCompDirectiveNoFileComp
		},
	}
}

// completeArguments has shells offer folders where a command takes one, and
// nothing where it takes none.
func completeArguments(root *cobra.Command) {
	folders := func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return nil, cobra.ShellCompDirectiveFilterDirs
	}
	for _, c := range root.Commands() {
		switch c.Name() {
		case "mount", "umount", "demo":
			c.ValidArgsFunction = folders
		case "init", "recover", "peer", "down", "sync", "fsck", "doctor":
			c.ValidArgsFunction = cobra.NoFileCompletions
		}
		completeArguments(c)
	}
}

// namedShells has the command that writes completions fail for a shell that it does
// not know, and for none.
func namedShells(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	for _, c := range root.Commands() {
		if c.Name() == "completion" {
			c.Args = nil
			c.RunE = func(*cobra.Command, []string) error {
				return usageError{errors.New("say for which shell: skep completion bash, zsh, fish or powershell")}
			}
		}
	}
}
