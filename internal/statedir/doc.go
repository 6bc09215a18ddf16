// Package statedir keeps what injectors must know over their starts in a directory that only their user may enter: a
// lock that admits one process, who had it last, the journals of its agents, and small files of others.
//
// The directory may be removed or mounted over at any time. What is written goes where the path leads then.
package statedir
