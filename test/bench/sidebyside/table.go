package main

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// table collects results.
type table struct {
	columns []*column
	began   time.Time
	rates   map[cell][]float64 // units a second
	costs   map[cell][]float64 // processor time for a unit, in microseconds
}

type cell struct {
	workload int
	system   string
}

func newTable(columns []*column) *table {
	return &table{columns: columns, began: time.Now(), rates: map[cell][]float64{}, costs: map[cell][]float64{}}
}

func (t *table) add(workload int, c *column, r result) {
	at := cell{workload, c.system.name}
	t.rates[at] = append(t.rates[at], r.Count/r.Elapsed.Seconds())
	t.costs[at] = append(t.costs[at], float64(r.CPU.Microseconds())/r.Count)
}

func median(v []float64) float64 {
	if len(v) == 0 {
		return 0
	}
	s := slices.Sorted(slices.Values(v))
	return (s[(len(s)-1)/2] + s[len(s)/2]) / 2
}

// print writes the page.
func (t *table) print(w io.Writer) {
	var u unix.Utsname
	_ = unix.Uname(&u)
	fmt.Fprintf(w, "%d cores, Linux %s, %s; load %s; measured in %v\n", runtime.NumCPU(), unix.ByteSliceToString(u.Release[:]),
		runtime.Version(), load(), time.Since(t.began).Round(time.Second))
	fmt.Fprint(w, "\nSpeed: medians, units a second (s: seconds for the whole)\n\n")
	t.rows(w, t.rates, func(work workload, v float64) string {
		if work.unit == "s" {
			v = 1 / v
		} else {
			v /= work.per
		}
		return number(v)
	})
	fmt.Fprint(w, "\nProcessor time of the program and of the server, in microseconds for each unit (s: in seconds for the whole)\n\n")
	t.rows(w, t.costs, func(work workload, v float64) string {
		if work.unit == "s" {
			v /= 1e6
		} else {
			v *= work.per
		}
		return number(v)
	})
	fmt.Fprint(w, "\nGoals: speed, and, in parentheses, what the ratio is by processor time\n\n")
	t.goals(w)
}

func (t *table) rows(w io.Writer, of map[cell][]float64, show func(workload, float64) string) {
	head := []string{"workload", "unit"}
	for _, c := range t.columns {
		head = append(head, c.system.title)
	}
	line(w, head)
	line(w, slices.Repeat([]string{"---"}, len(head)))
	for i, work := range workloads {
		cells := []string{work.name, work.unit}
		for _, c := range t.columns {
			v := of[cell{i, c.system.name}]
			if len(v) == 0 {
				continue
			}
			cells = append(cells, show(work, median(v)))
		}
		if len(cells) > 2 {
			line(w, cells)
		}
	}
}

// goals prints how the drive stands to what it is to be compared with.
func (t *table) goals(w io.Writer) {
	line(w, []string{"workload", "mounted by", "compared with", "ratio", "at least", "aim", "", "to the bare directory"})
	line(w, slices.Repeat([]string{"---"}, 8))
	for i, work := range workloads {
		for _, by := range mounts(work) {
			ours, theirs := median(t.rates[cell{i, by.name}]), median(t.rates[cell{i, by.goal.of}])
			if ours == 0 || theirs == 0 {
				continue
			}
			ratio := ours / theirs
			cpu := median(t.costs[cell{i, by.goal.of}]) / median(t.costs[cell{i, by.name}])
			line(w, []string{work.name, by.who, title(by.goal.of), fmt.Sprintf("%.2f (%.2f)", ratio, cpu),
				fmt.Sprint(by.goal.least), fmt.Sprint(by.goal.aim), verdict(ratio, by.goal), t.toBare(i, ours)})
		}
	}
}

// toBare is the ratio to the bare directory, which says how far a goal can be
// reached at all: nobody is faster than the disk.
func (t *table) toBare(workload int, rate float64) string {
	if bare := median(t.rates[cell{workload, "bare"}]); bare > 0 {
		return fmt.Sprintf("%.2f", rate/bare)
	}
	return ""
}

// by is one way to mount a drive.
type by struct {
	name, who string
	goal      goal
}

func mounts(w workload) (out []by) {
	user := "user"
	if isRoot {
		for _, g := range w.goals {
			out = append(out, by{"skep", "root", g})
		}
	} else {
		user = "skep"
	}
	for _, g := range w.userGoals {
		out = append(out, by{user, "an ordinary user", g})
	}
	return out
}

func title(name string) string {
	for _, s := range systems {
		if s.name == name {
			return s.title
		}
	}
	return name
}

func verdict(ratio float64, g goal) string {
	switch {
	case ratio >= g.aim:
		return "reached"
	case ratio >= g.least:
		return "enough"
	}
	return "short"
}

func line(w io.Writer, cells []string) { fmt.Fprintf(w, "| %s |\n", strings.Join(cells, " | ")) }

// number shows three digits.
func number(v float64) string {
	switch {
	case v >= 100:
		return fmt.Sprintf("%.0f", v)
	case v >= 10:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// load is what else the machine had to do.
func load() string {
	b, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(b), " ")
	return one
}
