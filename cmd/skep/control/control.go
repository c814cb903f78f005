package control

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotRunning says that no daemon answers, or that the one that does is ending.
var ErrNotRunning = errors.New("no skep daemon is running for this home")

// ErrSilent says that there is a daemon, and that it answers nobody.
var ErrSilent = errors.New("the daemon of this home does not answer")

// Mount asks to mount the drive.
type Mount struct {
	Dir     string `json:"dir"`
	Options string `json:"options,omitempty"`
	Source  string `json:"source,omitempty"` // as in mount.Options
	Cache   *int64 `json:"cache,omitempty"`  // the cache's new limit; 0 is a share of the disk
	// Bootstrap are full addresses of more peers to join the swarm by.
	Bootstrap []string `json:"bootstrap,omitempty"`
}

// Mounted says that it is mounted.
type Mounted struct {
	Alone string `json:"alone,omitempty"` // why no peer is there
	Again bool   `json:"again,omitempty"` // it was so already, and has the new settings
}

// Unmount asks to unmount it.
type Unmount struct {
	Dir   string `json:"dir"`
	Force bool   `json:"force,omitempty"`
}

// Sync asks for a commit; the answer comes when it is out.
type Sync struct {
	Timeout time.Duration `json:"timeout,omitempty"` // 0: none
}

// Synced says that all that was done before is out.
type Synced struct {
	// Lost says what of it holders have lost since, though, that is not here either;
	// empty: nothing. No waiting brings that back.
	Lost string `json:"lost,omitempty"`
	// Frail says what of it is less safe than one may think; empty: nothing.
	Frail string `json:"frail,omitempty"`
	// InMotion are files that were written all the time, and are out as a power cut
	// would have left them.
	InMotion []string `json:"in_motion,omitempty"`
	// Away is how many packs cannot be read now, as too few of their holders answer.
	Away int `json:"packs_away"`
}

// Pending is what is on this device only.
type Pending struct {
	Files int64 `json:"files"`
	Bytes int64 `json:"bytes"`
}

// Down says that the daemon ends.
type Down struct {
	Pending
	Began time.Time `json:"began"` // as in the status of this daemon
	PID   int       `json:"pid"`
}

// Unmounted says that it is unmounted.
type Unmounted struct {
	Pending
	Ends bool `json:"ends"` // the daemon ends with its mount
	Held bool `json:"held"` // it is out of its place, but still held, by another mount namespace
}

// Repair asks to pause or resume repairs.
type Repair struct {
	Pause bool `json:"pause"`
}

// Status is everything that a daemon tells of itself. The names of its fields
// in JSON are there for scripts to rely on.
type Status struct {
	Version string    `json:"version"`
	Began   time.Time `json:"began"` // when this daemon was started: another one began at another time
	Peer    string    `json:"peer"`  // its id in the swarm
	Addrs   []string  `json:"addrs"`
	Home    string    `json:"home"`

	Offered int64 `json:"offered"` // bytes for others
	Hosting int64 `json:"hosting"` // of these, taken

	Drive  string   `json:"drive,omitempty"`
	Mounts []string `json:"mounts,omitempty"`
	Held   []string `json:"held,omitempty"` // where it was detached from, and is held elsewhere still
	Files  int64    `json:"files"`
	Bytes  int64    `json:"bytes"`
	// Joining says that the swarm is being looked for: what is told of peers, and of what
	// is with them, is not known yet.
	Joining bool `json:"joining"`

	Read       bool  `json:"index_complete"` // all of the block index is on this device
	IndexDone  int64 `json:"index_done"`     // pieces of the block index that are on this device, while the others come
	IndexTotal int64 `json:"index_total"`
	// IndexUnread is why the rest of it, or of the names, cannot be read now.
	IndexUnread string `json:"index_unread,omitempty"`

	PendingBytes int64     `json:"pending_bytes"`
	PendingFiles int64     `json:"pending_files"`
	Uploading    bool      `json:"uploading"`
	UploadedNow  int64     `json:"uploaded_now"` // bytes of the commit under way that are with holders
	Commit       uint64    `json:"commit"`
	CommitTime   time.Time `json:"commit_time"`
	LastError    string    `json:"last_error,omitempty"`
	// SwarmFull says that there are peers, and not enough room with them for what waits.
	SwarmFull   string   `json:"swarm_full,omitempty"`
	IndexDamage string   `json:"index_damage,omitempty"` // found in the local index: nothing can be written
	Moving      []string `json:"moving,omitempty"`
	Unread      []string `json:"unread,omitempty"` // that changed, in chunks of which the rest cannot be read

	Packs            int `json:"packs"`
	PacksBelowTarget int `json:"packs_below_target"`
	PacksLost        int `json:"packs_lost"`
	PacksAway        int `json:"packs_away"`      // not lost, but too few holders answer now
	PacksOnlyHere    int `json:"packs_only_here"` // below target: holders have too little of them, this device all
	// Lost are files of which something is in lost packs and not here;
	// LostElsewhere counts such blocks of what this device has not looked at.
	Lost          []string `json:"lost,omitempty"`
	LostElsewhere int      `json:"lost_elsewhere,omitempty"`
	PacksAtRisk   int      `json:"packs_at_risk"`
	// PacksWeak are in codings that are clearly less safe than those which the peers
	// that are there now allow, and are to be stored again; PacksFrail survive the loss
	// of no holder.
	PacksWeak     int       `json:"packs_weak"`
	PacksFrail    int       `json:"packs_frail"`
	PacksUnasked  int       `json:"packs_unasked"` // of which some holders were not asked yet: presumed well
	Holders       int       `json:"holders"`       // that are not dead
	Asked         int       `json:"holders_asked"` // of these, for all that they are believed to have
	ShardsMissing int       `json:"shards_missing"`
	StoredBytes   int64     `json:"stored_bytes"` // at holders, parity included
	AsOf          time.Time `json:"as_of"`        // since when all holders that were ever asked were asked again
	Repairing     int       `json:"repairing"`
	RepairPaused  bool      `json:"repair_paused"`
	// FormerHolders counts, over all groups, the holders that lost their slot and have
	// not been asked yet to delete what they have of it.
	FormerHolders int      `json:"former_holders"`
	Codings       []Coding `json:"codings"`
	Plan          string   `json:"plan,omitempty"`
	Shortfall     []string `json:"shortfall,omitempty"`
	// The recovery record is with its keepers, and this device in the keyring.
	RecoveryOut bool `json:"recovery_out"`
	// SetBack says that keepers have a commit of this device that it does not know, so
	// that nothing goes out; Overtaken, that the words bring back the state of another
	// device, without what this one made; Others, that there is a device whose commits
	// this one does not follow, so that nothing is given up.
	SetBack   string `json:"set_back,omitempty"`
	Overtaken string `json:"overtaken,omitempty"`
	Others    string `json:"others,omitempty"`
	// Unneeded packs, of so many bytes at holders, serve nothing any more; UnneededUntil
	// says when they are given up.
	Unneeded      int    `json:"unneeded_packs"`
	UnneededBytes int64  `json:"unneeded_bytes"`
	UnneededUntil string `json:"unneeded_until,omitempty"`

	Peers []Peer       `json:"peers"`
	Paths []PathStatus `json:"paths,omitempty"`
	Cache Cache        `json:"cache"`
}

// Coding is how the packs of one class are coded.
type Coding struct {
	Class  string `json:"class"`
	Kind   string `json:"kind"`
	K      int    `json:"k"`
	N      int    `json:"n"`
	Groups int    `json:"groups"`
	Packs  int    `json:"packs"`
}

// Peer is one peer of the swarm as this device sees it.
type Peer struct {
	ID           string   `json:"id"`
	Addrs        []string `json:"addrs"`
	Region       string   `json:"region"`
	Shards       int      `json:"shards"` // of this drive
	State        string   `json:"state"`
	Free         int64    `json:"free"`
	Availability float64  `json:"availability"`
	RoundTripMS  float64  `json:"round_trip_ms"`
	Lies         int      `json:"lies,omitempty"`
}

// PathStatus is the state of one file, or of a directory and all below it.
type PathStatus struct {
	Path     string `json:"path"`
	Bytes    []byte `json:"path_bytes,omitempty"` // the path, if it is no text
	Folder   bool   `json:"folder"`
	State    string `json:"state"` // local, lost, away, out, safe
	Size     int64  `json:"size"`
	Resident int64  `json:"resident"` // bytes on this device
	// Packs are those that content and names lie in, and what follows All says what is
	// the matter with them, as in Status. While nothing is the matter with any, a folder
	// has All packs of the drive here, of which it may need a part.
	Packs            int  `json:"packs"`
	All              bool `json:"all_packs,omitempty"`
	PacksBelowTarget int  `json:"packs_below_target"`
	PacksLost        int  `json:"packs_lost"`
	PacksAway        int  `json:"packs_away"`      // not lost, but too few holders answer now
	PacksOnlyHere    int  `json:"packs_only_here"` // below target: holders have too little of them, this device all
	PacksAtRisk      int  `json:"packs_at_risk"`
	PacksUnasked     int  `json:"packs_unasked"`
	PacksWeak        int  `json:"packs_weak"`
	PacksFrail       int  `json:"packs_frail"`
	// ShardsMissing are those that their holders do not have, or that are with
	// holders that are gone, of all these packs.
	ShardsMissing int `json:"shards_missing"`
	// Groups are those, by the beginning of their ids, that have such packs.
	Groups []string `json:"groups_at_risk,omitempty"`
	// Proven is since when enough holders of each pack have passed an audit; the
	// zero time if they have not yet.
	Proven time.Time `json:"proven"`
	Error  string    `json:"error,omitempty"`
}

// Pin asks to pin paths to this device, or to unpin them, or what is pinned.
type Pin struct {
	Paths  [][]byte `json:"paths,omitempty"` // a name is bytes, not text
	Remove bool     `json:"remove,omitempty"`
	List   bool     `json:"list,omitempty"`
}

// Pins is what is pinned of what was asked for.
type Pins struct {
	Pins []Pinned `json:"pins"`
	Room int64    `json:"room"` // for content in the cache
}

// Pinned is one pin.
type Pinned struct {
	Path  string `json:"path"`
	Files int64  `json:"files"`
	Bytes int64  `json:"bytes"`
	Here  int64  `json:"here"` // bytes that are on this device
}

// Cache is the room that the drive takes on this device.
type Cache struct {
	Limit    int64 `json:"limit"`    // that it keeps to now
	Setting  int64 `json:"setting"`  // that was asked for; 0 is a share of the disk
	Reserve  int64 `json:"reserve"`  // beyond it, for files that the kernel writes alone
	Used     int64 `json:"used"`     // content and tables
	Content  int64 `json:"content"`  // backing files
	Unsynced int64 `json:"unsynced"` // of these, not out yet
	Tables   int64 `json:"tables"`   // journal, index, packs of metadata
	Here     int64 `json:"here"`     // bytes of files that are on this device
	Evicted  int64 `json:"evicted"`  // bytes of files that are not
	Freed    int64 `json:"freed"`    // let go of since the daemon started
	Full     bool  `json:"full"`     // writing is refused

	Pinned     int64     `json:"pinned"`       // bytes of files that are to stay here
	PinnedHere int64     `json:"pinned_here"`  // bytes of them that are
	PinnedAsOf time.Time `json:"pinned_as_of"` // when these two were counted
	PinsTooBig bool      `json:"pins_too_big"` // they do not fit into the cache

	JournalBytes int64 `json:"journal_bytes"`
	DiskFree     int64 `json:"disk_free"`
}

// Client calls a daemon.
type Client struct {
	http http.Client
	pid  atomic.Int32 // of who listens; 0: not known
}

// NewClient returns a client for the daemon at a socket.
func NewClient(socket string) *Client {
	c := &Client{}
	c.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			conn, err := d.DialContext(ctx, "unix", socket)
			if err == nil {
				c.pid.Store(listenerOf(conn))
			}
			return conn, err
		},
	}
	return c
}

// listenerOf is the process that listens at the other end; 0 if that is not known.
func listenerOf(conn net.Conn) (pid int32) {
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) {
		if cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); err == nil {
			pid = cred.Pid
		}
	})
	return pid
}

// answerWithin is how long a daemon may take to show that it answers at all.
const answerWithin = 10 * time.Second

// Call sends a request and decodes the answer into out, if that is not nil. An
// error that the daemon reports comes back as an *Error. The answer may take long: only
// of a daemon that answers nothing it is said, before, that it is silent.
func (c *Client) Call(ctx context.Context, path string, in, out any) error {
	if err := c.answers(ctx); err != nil {
		return err
	}
	return c.call(ctx, path, in, out)
}

// answers asks the daemon for nothing, and is content with whatever it says.
func (c *Client) answers(ctx context.Context) error {
	soon, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	req, err := http.NewRequestWithContext(soon, http.MethodHead, "http://skep/", nil)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	switch {
	case err == nil:
		return resp.Body.Close()
	case soon.Err() == nil || ctx.Err() != nil:
		return unanswered(ctx, err)
	}
	if pid := c.pid.Load(); pid > 0 {
		return fmt.Errorf("%w: process %d is stopped, or hangs", ErrSilent, pid)
	}
	return ErrSilent
}

func (c *Client) call(ctx context.Context, path string, in, out any) error {
	b, err := json.Marshal(in)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://skep"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return unanswered(ctx, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusServiceUnavailable {
		return ErrNotRunning
	}
	if resp.StatusCode != http.StatusOK {
		e := &Error{}
		if json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(e) != nil || e.Message == "" {
			e.Message = resp.Status
		}
		return e
	}
	if out == nil {
		return nil
	}
	return json.NewDecoder(resp.Body).Decode(out)
}

// unanswered says why there is no answer to a request.
func unanswered(ctx context.Context, err error) error {
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" {
		return ErrNotRunning
	}
	if errors.Is(err, io.EOF) || errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE) {
		return fmt.Errorf("%w: it ended before it answered", ErrNotRunning)
	}
	if ctx.Err() != nil {
		return fmt.Errorf("the daemon did not answer: %w", ctx.Err())
	}
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return fmt.Errorf("the daemon did not answer: %w", err)
}

// Error is a failure that the daemon reports.
type Error struct {
	Message string `json:"error"`
	// Code is the exit status that a command should end with.
	Code int `json:"code"`
}

// Error implements error.
func (e *Error) Error() string { return e.Message }

// Handler answers one kind of request: it decodes what was sent into the value
// that the handler takes, and encodes what that returns.
func Handler[In, Out any](fn func(ctx context.Context, in In) (Out, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var in In
		if err := json.NewDecoder(io.LimitReader(r.Body, 1<<20)).Decode(&in); err != nil {
			writeError(w, http.StatusBadRequest, err)
			return
		}
		out, err := fn(r.Context(), in)
		if err != nil {
			writeError(w, http.StatusConflict, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(out) // the asker is gone if it fails
	}
}

func writeError(w http.ResponseWriter, status int, err error) {
	if errors.Is(err, ErrNotRunning) {
		status = http.StatusServiceUnavailable
	}
	e := &Error{}
	if !errors.As(err, &e) {
		e = &Error{Message: err.Error(), Code: 1}
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(e)
}

// Listen opens the socket, taking the place of one that a daemon left behind.
func Listen(socket string) (net.Listener, error) {
	if c, err := net.Dial("unix", socket); err == nil {
		_ = c.Close()
		return nil, fmt.Errorf("control socket %s: somebody listens there", socket)
	}
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, fmt.Errorf("control socket: %w", err)
	}
	if err := os.Chmod(socket, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("control socket: %w", err)
	}
	return l, nil
}
