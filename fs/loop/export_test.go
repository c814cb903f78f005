package loop

// ServeFar is Serve with workers that do not follow their callers.
func (l *Loop) ServeFar() error { return l.serve() }

// Newcomer is after how many requests of a thread the loop looks where it runs.
const Newcomer = newcomer
