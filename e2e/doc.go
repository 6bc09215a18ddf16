// Package e2e tests what runs on platforms: the image, the Compose examples on a real Docker Engine, and the
// manifests for Kubernetes. It is a module of its own, so that loaders and API types of those platforms
// stay out of the product's go.mod.
package e2e
