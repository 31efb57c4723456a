package nats

import (
	"os"
	"testing"

	"github.com/prism-data-layer/prism/internal/testenv"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(storeOfChild); dir != "" {
		runChild(dir)
		return
	}
	testenv.Main(m)
}
