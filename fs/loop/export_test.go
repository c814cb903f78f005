package loop

// ServeFar is Serve with workers that do not follow their callers.
func (l *Loop) ServeFar() error { return l.serve() }
