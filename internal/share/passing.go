package share

// passing lists the kinds for which Passing is true.
var passing = map[Kind]bool{
	LPTimeout:          true,
	LPUnavailable:      true,
	LPRateLimited:      true,
	StorageUnavailable: true,
	StorageRateLimited: true,
	StorageURLRejected: true, // the next attempt requests a fresh URL
}

// Passing reports whether a condition usually passes by itself, so that another attempt inside the server may succeed. It says
// nothing about the effect of the failed attempt: whether repeating is safe depends on the operation.
func Passing(kind Kind) bool { return passing[kind] }
