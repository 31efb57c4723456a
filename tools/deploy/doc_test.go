// Package deploy_test checks the Dockerfile and what lies in deployments/ with the code that reads it elsewhere: that of Docker's
// builder, of docker compose, Kubernetes, kustomize and Prometheus. It is a module of its own, because those bring hundreds of
// others. `make lint-deployments` runs it.
package deploy_test

// root is the project's, seen from here.
const root = "../.."
