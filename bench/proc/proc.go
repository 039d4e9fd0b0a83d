// Package proc reads what processes have used: CPU time and memory from Linux, allocations from Go's runtime by expvar.
package proc

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ is 100 on every Linux.
const tick = 10 * time.Millisecond

// CPU returns the user and system time that the processes have used.
func CPU(pids []int) (time.Duration, error) {
	var ticks int64
	for _, pid := range pids {
		fields, err := stat(pid)
		if err != nil {
			return 0, err
		}
		for _, field := range fields[11:13] { // utime, stime
			n, err := strconv.ParseInt(field, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("/proc/%d/stat: %w", pid, err)
			}
			ticks += n
		}
	}
	return time.Duration(ticks) * tick, nil
}

// stat returns the fields of /proc/PID/stat after the name.
func stat(pid int) ([]string, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 13 {
		return nil, fmt.Errorf("/proc/%d/stat has %d fields", pid, len(fields))
	}
	return fields, nil
}

// Tree returns a process and its children.
func Tree(pid int) []int {
	pids := []int{pid}
	dirs, _ := filepath.Glob("/proc/[0-9]*")
	for _, dir := range dirs {
		child, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			continue
		}
		if fields, err := stat(child); err == nil && fields[1] == strconv.Itoa(pid) {
			pids = append(pids, child)
		}
	}
	return pids
}

// Machine returns the CPU time that all processes of this machine, its kernel and its host's other guests have used.
func Machine() (time.Duration, error) {
	text, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	line, _, _ := strings.Cut(string(text), "\n")
	fields := strings.Fields(line)
	if len(fields) < 9 {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	var ticks int64
	for _, i := range []int{1, 2, 3, 6, 7, 8} { // user, nice, system, irq, softirq, steal
		n, _ := strconv.ParseInt(fields[i], 10, 64)
		ticks += n
	}
	return time.Duration(ticks) * tick, nil
}

// Memory returns one of the kernel's figures, summed over the processes, in bytes: VmRSS is what is resident, VmHWM the most that was.
func Memory(pids []int, figure string) (int64, error) {
	var sum int64
	for _, pid := range pids {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			return 0, err
		}
		_, rest, found := strings.Cut(string(text), figure+":")
		var kib int64
		if _, err := fmt.Sscan(rest, &kib); !found || err != nil {
			return 0, fmt.Errorf("/proc/%d/status has no %s", pid, figure)
		}
		sum += kib << 10
	}
	return sum, nil
}

// Heap has the counters of a Go program's memory.
type Heap struct {
	Mallocs, TotalAlloc, NumGC       int64 // since its start
	HeapAlloc, StackInuse, HeapInuse int64
}

// ReadHeap reads them from a program's /debug/vars at addr. Without an address they are 0.
func ReadHeap(addr string) (Heap, error) {
	if addr == "" {
		return Heap{}, nil
	}
	resp, err := http.Get("http://" + addr + "/debug/vars")
	if err != nil {
		return Heap{}, err
	}
	defer resp.Body.Close()
	var vars struct{ Memstats Heap }
	err = json.NewDecoder(resp.Body).Decode(&vars)
	return vars.Memstats, err
}
