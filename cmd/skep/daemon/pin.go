package daemon

import (
	"context"
	"fmt"
	"path/filepath"

	"skep/cache/tree"
	"skep/cmd/skep/control"
)

func (d *drive) pinsChanged() {
	if d.keeper != nil {
		d.keeper.PinsChanged()
	}
}

// shown is a path of the drive as people find it: below the mount, if there is one.
func (d *Daemon) shown(path string) string {
	if at := d.mountpoint(); at != "" {
		return filepath.Join(at, path)
	}
	return path
}

// pin pins paths to this device, or unpins them, or lists what is pinned.
func (d *Daemon) pin(ctx context.Context, in control.Pin) (control.Pins, error) {
	out := control.Pins{Pins: []control.Pinned{}}
	if d.drive == nil {
		return out, errNoDrive
	}
	r := d.drive.keeper.Report()
	out.Room = max(0, r.Marks.Limit-r.Use.Tables)
	var inos []tree.Ino
	for _, path := range in.Paths {
		ino, err := d.find(ctx, string(path))
		if err == nil {
			err = d.drive.tree.Pin(ctx, ino, !in.Remove)
		}
		if err != nil {
			return out, fmt.Errorf("%s: %w", path, err)
		}
		inos = append(inos, ino)
	}
	if in.List {
		inos = d.drive.tree.Pins()
	}
	for _, ino := range inos {
		p, err := d.drive.keeper.Below(ctx, ino)
		if err != nil {
			return out, err
		}
		out.Pins = append(out.Pins, control.Pinned{Path: d.shown(d.drive.tree.Path(ino)), Files: p.Files, Bytes: p.Bytes, Here: p.Here})
	}
	return out, nil
}
