package sidecar

import (
	"errors"
	"fmt"
	"net"
)

// listen listens on the address of INJECTOR_LISTEN. The error does not show it: anything can have been pasted there.
func listen(address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	if errors.As(err, new(*net.DNSError)) {
		return nil, errors.New("INJECTOR_LISTEN: its host is not known here")
	}
	if op, ok := errors.AsType[*net.OpError](err); ok {
		err = op.Err
	}
	return nil, fmt.Errorf("INJECTOR_LISTEN: %w", err)
}
