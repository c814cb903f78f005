package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/term"

	"skep/chunker/keyring"
	"skep/cmd/skep/home"
)

// passphrase reads the passphrase for new keys: from the file that was named,
// else none.
func (a *app) passphrase() ([]byte, error) {
	if a.passphraseFile == "" {
		return nil, nil
	}
	b, err := os.ReadFile(a.passphraseFile)
	if err != nil {
		return nil, fmt.Errorf("passphrase: %w", err)
	}
	b = bytes.TrimRight(b, "\r\n")
	if len(b) == 0 {
		return nil, fmt.Errorf("passphrase: %s is empty", a.passphraseFile)
	}
	return b, nil
}

// unlock opens the keys of a home, asking for the passphrase on the terminal
// if there is one and it is needed.
func (a *app) unlock(ctx context.Context, h home.Dir) (keyring.Local, error) {
	if err := h.Whole(); err != nil {
		return keyring.Local{}, err
	}
	pass, err := a.passphrase()
	if err != nil {
		return keyring.Local{}, err
	}
	keys, err := h.Keys(pass)
	if !errors.Is(err, keyring.ErrLocked) {
		return keys, err
	}
	if !term.IsTerminal(int(os.Stdin.Fd())) {
		return keys, fmt.Errorf("%w: give --passphrase-file", err)
	}
	fmt.Fprint(a.errOut, "Passphrase of the keys: ")
	pass, err = readPassphrase(ctx)
	fmt.Fprintln(a.errOut)
	if err != nil {
		return keys, fmt.Errorf("passphrase: %w", err)
	}
	return h.Keys(pass)
}

// readPassphrase reads a line from the terminal that it does not show, until ctx ends.
// What waits for the line then ends with the process.
func readPassphrase(ctx context.Context) ([]byte, error) {
	stdin := int(os.Stdin.Fd())
	before, err := term.GetState(stdin)
	if err != nil {
		return nil, err
	}
	type line struct {
		text []byte
		err  error
	}
	read := make(chan line, 1)
	go func() {
		text, err := term.ReadPassword(stdin)
		read <- line{text, err}
	}()
	select {
	case l := <-read:
		return l.text, l.err
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), term.Restore(stdin, before))
	}
}
