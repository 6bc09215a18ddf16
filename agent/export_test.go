package agent

// KeepSecrets makes a state directory count as in memory, so that tests run where nothing is.
func KeepSecrets(s *StateDir, keep bool) { s.keepsSecrets = keep }
