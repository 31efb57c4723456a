package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Measured is what an experiment has found: the content of its file.
type Measured struct {
	Experiment string  `json:"experiment"`
	Date       string  `json:"date"`
	Commit     string  `json:"commit"`
	Machine    string  `json:"machine"`
	Cores      int     `json:"cores"`
	Quick      bool    `json:"quick,omitempty"` // short loads: the figures are worth nothing
	Points     []Point `json:"points"`
}

// Point is one measurement.
type Point struct {
	// Series is what was measured, X how many there were of what the experiment varies.
	Series string `json:"series"`
	X      int    `json:"x"`
	// Operations is how many there were, in how many Seconds, PerSecond the median rate of the rounds.
	Operations uint64  `json:"operations,omitempty"`
	Failed     uint64  `json:"failed,omitempty"`
	Seconds    float64 `json:"seconds,omitempty"`
	PerSecond  float64 `json:"per_second,omitempty"`
	// CPU is the median of the rounds, for each kind of process: microseconds of CPU time for each operation.
	CPU map[string]float64 `json:"cpu_us_per_operation,omitempty"`
	// P50 is the median time of an operation in milliseconds; the median of the rounds.
	P50 float64 `json:"p50_ms,omitempty"`
	// Memory is what is resident, or used, by kind, in bytes.
	Memory map[string]float64 `json:"memory_bytes,omitempty"`
	// Other holds what is counted besides.
	Other map[string]float64 `json:"other,omitempty"`
}

// total is the CPU time of all servers, microseconds for each operation.
func (p Point) total() (sum float64) {
	for _, us := range p.CPU {
		sum += us
	}
	return sum
}

// series returns the points of a series, in the order in which they were measured.
func (m *Measured) series(name string) (points []Point) {
	for _, p := range m.Points {
		if p.Series == name {
			points = append(points, p)
		}
	}
	return points
}

// at returns one point; its zero value if there is none.
func (m *Measured) at(series string, x int) Point {
	for _, p := range m.series(series) {
		if p.X == x {
			return p
		}
	}
	return Point{}
}

// last returns the last point of a series; its zero value if there is none.
func (m *Measured) last(series string) (last Point) {
	for _, p := range m.series(series) {
		last = p
	}
	return last
}

func (m *Measured) save(folder string) error {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(folder, 0o755); err != nil { //nolint:gosec // documentation, for everybody
		return err
	}
	return os.WriteFile(filepath.Join(folder, m.Experiment+".json"), append(text, '\n'), 0o644) //nolint:gosec // same
}

// load reads the files of all experiments.
func load(folder string) (map[string]*Measured, error) {
	found := make(map[string]*Measured)
	for _, name := range names() {
		text, err := os.ReadFile(filepath.Join(folder, name+".json"))
		if errors.Is(err, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s was never measured: run without -only and -draw", name)
		}
		if err != nil {
			return nil, err
		}
		m := new(Measured)
		if err := json.Unmarshal(text, m); err != nil {
			return nil, fmt.Errorf("%s.json: %w", name, err)
		}
		found[name] = m
	}
	return found, nil
}
