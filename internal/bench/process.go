package bench

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"time"

	"github.com/prometheus/procfs"
)

// usage is how much of the machine processes have used up to a time. What cannot be looked at, because it runs elsewhere, as
// somebody else, or because there is no /proc, is left out.
type usage struct {
	at        time.Time
	processes []procfs.Proc
	names     []string
	cpu       []float64 // seconds
}

// observe finds this process, and the servers that run on this machine.
func observe(servers []string) *usage {
	u := &usage{}
	proc, err := procfs.NewDefaultFS()
	if err != nil {
		return u
	}
	if self, err := proc.Proc(os.Getpid()); err == nil {
		u.add("load", self)
	}
	for _, server := range servers {
		host, port, err := net.SplitHostPort(server)
		ip := net.ParseIP(host)
		if err != nil || host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			continue
		}
		if p, found := serverOn(proc, port); found && p.PID != os.Getpid() {
			u.add(server, p)
		}
	}
	u.at = time.Now()
	return u
}

func (u *usage) add(name string, p procfs.Proc) {
	u.processes, u.names, u.cpu = append(u.processes, p), append(u.names, name), append(u.cpu, cpuSeconds(p))
}

// tcpListen is the kernel's number for a socket that listens.
const tcpListen = 0x0A

// serverOn finds the process that listens on a port of this machine.
func serverOn(proc procfs.FS, port string) (p procfs.Proc, found bool) {
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return p, false
	}
	// What cannot be read has no sockets. Deprecated, because it is slow where there are very many; it is called once.
	v4, _ := proc.NetTCP()  //nolint:staticcheck // see above
	v6, _ := proc.NetTCP6() //nolint:staticcheck // see above
	var sockets []string
	for _, line := range slices.Concat(v4, v6) {
		if line.St == tcpListen && line.LocalPort == number {
			sockets = append(sockets, fmt.Sprintf("socket:[%d]", line.Inode))
		}
	}
	all, _ := proc.AllProcs()
	for _, p := range all {
		open, err := p.FileDescriptorTargets()
		if err == nil && slices.ContainsFunc(open, func(file string) bool { return slices.Contains(sockets, file) }) {
			return p, true
		}
	}
	return p, false
}

// since tells what has been used since observe.
func (u *usage) since() (used []Process) {
	span := time.Since(u.at).Seconds()
	for i, p := range u.processes {
		stat, err := p.Stat()
		if err != nil {
			continue // it has ended
		}
		used = append(used, Process{
			Name: u.names[i], PID: p.PID, CPU: 100 * (stat.CPUTime() - u.cpu[i]) / span, Memory: uint64(stat.ResidentMemory()),
		})
	}
	return used
}

func cpuSeconds(p procfs.Proc) float64 {
	stat, err := p.Stat()
	if err != nil {
		return 0
	}
	return stat.CPUTime()
}
