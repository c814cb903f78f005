package run

// Free reports whether nobody holds the lock of the state.
func (l *Loop) Free() bool {
	if !l.mu.TryLock() {
		return false
	}
	l.mu.Unlock()
	return true
}

// Wait returns when nothing is under way. Steps that go on meanwhile may begin
// something new.
func (l *Loop) Wait() { l.work.Wait() }
