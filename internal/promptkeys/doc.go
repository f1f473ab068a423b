// Package promptkeys turns prompts into the keys that workers report, and finds out under
// which hash profile and chunk size a fleet makes them.
//
// A Finder has a list of candidates: one when the profile is fixed, else what
// lmcache.AutoCandidates gives for the known seeds, at each of the chunk sizes. Those that
// have hit are in use. A lookup asks for the prompt's first chunk under each profile in use
// and follows all that hit, so that engines of different profiles in one fleet are found
// side by side; only when none hits, and in one lookup of sixteen all the same, the remaining
// candidates are tried. A fixed profile never tries another. See DESIGN.md for the cost.
//
//	f, err := promptkeys.New(promptkeys.Options{Profile: "auto", Seeds: seeds, ChunkSizes: []int{256}})
//	found := f.Find(reg, promptkeys.Prompt{Tokens: tokens}) // a lookup
//	list := f.Survey(reg, p)                                // every candidate, for a diagnosis
//	keys, ok := f.KeysOf(reg, "vllm-0", tokens)             // how one instance keys a prompt
//	key, ok := keys.Last(512)                               // of the last chunk of the first 512 tokens
//	stats := f.Stats(reg)                                   // for people and metrics
//
// What is remembered (the profiles in use, their hits, which instance was found under
// which) is per process and bounded: another replica, or this one after a restart, finds
// out by its own first lookup. It never changes the registry.
//
// Callers: httpapi (lookups, status, metrics, diagnosis), and through cmd/kvctrld the
// executor, which asks for the keys of moved chunks. It has no goroutines; all methods may
// be called from any.
package promptkeys
