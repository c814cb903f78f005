package run

// Wait returns when nothing is under way. Steps that go on meanwhile may begin
// something new.
func (l *Loop) Wait() { l.work.Wait() }
