package nats

import (
	"fmt"
	"os"
	"testing"

	"github.com/prism-data-layer/prism/internal/testenv"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(storeOfChild); dir != "" {
		runChild(dir)
		return
	}
	if os.Getenv(audienceEnv) != "" {
		if err := audienceMain(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	testenv.Main(m)
}
