package space

// Swarm is what the peers can still take of a drive.
type Swarm struct {
	Known bool  // somebody has said so, now or in an earlier run
	Free  int64 // bytes of content: their free room by the expansion
	Takes bool  // uploads work, as far as we know: what is written here will leave again
}

// Room is what df tells of a drive, in bytes.
type Room struct{ Total, Free int64 }

// RoomOf is what can still be stored safely, and the sum of that and of what is
// stored:
//
//   - what the peers' free room holds, less what is written and not out yet;
//   - while nothing goes out, no more than fits here beside what cannot leave;
//   - while writers are refused (full), as nothing can leave, no more than fits here
//     beside all that is here;
//   - as long as nothing is known of any peer, what fits here.
func RoomOf(used int64, u Use, m Marks, s Swarm, full bool) Room {
	stays := max(u.Unsynced, min(u.Content, u.Unsynced+u.Pinned)) // what is pinned may not be out yet, too
	here := max(0, m.Limit-u.Tables-stays)
	free := here
	if s.Known {
		free = max(0, s.Free-u.Unsynced)
		if !s.Takes {
			free = min(free, here)
		}
	}
	if full {
		free = min(free, max(0, m.Limit-u.Total()))
	}
	used = max(0, used)
	return Room{Total: used + free, Free: free}
}
