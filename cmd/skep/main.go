package main

import (
	"os"

	"skep/cmd/skep/cli"
)

func main() { os.Exit(cli.Main(os.Args)) }
