package bench

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// clockTick is the unit of times in /proc: the kernel shows 100 a second on every
// platform that Go runs on.
const clockTick = 10 * time.Millisecond

// stat is the part of /proc/PID/stat that is used here.
type stat struct {
	parent   int
	own      time.Duration // user and system time of the process
	children time.Duration // of those of its children that have ended
	rssPages int64
}

func readStat(pid int) (stat, error) {
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, err
	}
	// The second field is the name in brackets, which may hold anything.
	text := string(content)
	fields := strings.Fields(text[strings.LastIndexByte(text, ')')+1:])
	const (
		parentField, userField, rssField = 1, 11, 21
		needed                           = rssField + 1
	)
	if len(fields) < needed {
		return stat{}, fmt.Errorf("/proc/%d/stat has only %d fields", pid, len(fields))
	}
	var numbers [needed]int64
	for i := parentField; i < needed; i++ {
		numbers[i], _ = strconv.ParseInt(fields[i], 10, 64) // those that are used are numbers
	}
	ticks := func(i int) time.Duration { return time.Duration(numbers[i]+numbers[i+1]) * clockTick }
	return stat{parent: int(numbers[parentField]), own: ticks(userField), children: ticks(userField + 2), rssPages: numbers[rssField]}, nil
}

// treeCPU is what a process and its children have used so far, those that have
// ended included; not a number where that cannot be read.
func treeCPU(pid int) float64 {
	root, err := readStat(pid)
	if err != nil {
		return math.NaN()
	}
	sum := root.own + root.children
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return math.NaN()
	}
	for _, entry := range entries {
		child, err := strconv.Atoi(entry.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(child); err == nil && s.parent == pid {
			sum += s.own + s.children
		}
	}
	return sum.Seconds()
}

// residentBytes is a process' memory; not a number where that cannot be read.
func residentBytes(pid int) float64 {
	s, err := readStat(pid)
	if err != nil {
		return math.NaN()
	}
	return float64(s.rssPages) * float64(os.Getpagesize())
}

// ownCPU is what this process has used so far, in seconds.
func ownCPU() float64 {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		return math.NaN()
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano()).Seconds()
}

// meter is what the processes have used at a moment, in seconds of one core, and
// the bytes that Postgres has written to its log.
type meter struct {
	earmark, temporal, postgres, driver float64
	walBytes                            float64
}

func (m meter) since(begin meter) meter {
	return meter{m.earmark - begin.earmark, m.temporal - begin.temporal, m.postgres - begin.postgres, m.driver - begin.driver, m.walBytes - begin.walBytes}
}

// servers is what the system used, without the load driver.
func (m meter) servers() float64 { return m.earmark + m.temporal + m.postgres }
