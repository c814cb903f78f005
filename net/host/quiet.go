package host

import (
	"log/slog"
	"os"

	golog "github.com/ipfs/go-log/v2"
	"github.com/libp2p/go-libp2p/gologshim"
)

// Quiet silences the logs of libp2p and its libraries for this process: what
// matters of them, skep says in its own words. Who sets GOLOG_LOG_LEVEL hears
// them.
func Quiet() {
	if os.Getenv("GOLOG_LOG_LEVEL") != "" {
		return
	}
	gologshim.SetDefaultHandler(slog.DiscardHandler)
	golog.SetAllLoggers(golog.LevelFatal)
}
