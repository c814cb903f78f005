package cli

import (
	"fmt"
	"io"
	"os"

	"skep/chunker/keyring"
)

// readAllStdin reads what came through the pipe that started the daemon.
func readAllStdin() ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(os.Stdin, keyring.MaxLocal+1))
	if err != nil {
		return nil, fmt.Errorf("keys on standard input: %w", err)
	}
	return b, nil
}
