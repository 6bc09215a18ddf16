// Package config reads the environment: what it is given in, settings with a meaning or all problems at once out.
//
// It knows no process, signal or server. Beyond the variables themselves it reads only the files that they name:
// templates, credentials and certificates.
package config
