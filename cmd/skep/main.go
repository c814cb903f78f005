// Command skep is a drive that you mount as a folder and that lives, sealed, on
// the free disk space of other people's computers.
package main

import (
	"os"

	"skep/cmd/skep/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
