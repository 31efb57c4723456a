// Package acceptance holds the scenarios that the specification asks for, run through the client against a real server, on
// every combination of backends. Add a combination in harness_test.go and every scenario runs on it.
package acceptance
