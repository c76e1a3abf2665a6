package ramdisk

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"github.com/ironring/ironring/agent/kmod"
	"github.com/ironring/ironring/internal/errs"
	"github.com/ironring/ironring/internal/version"
)

// Names of the files that Build writes. The boot service serves the first two.
const (
	KernelFile    = "vmlinuz"
	InitramfsFile = "initramfs.img"
	ManifestFile  = "manifest.json"
)

// Options of Build. Kernel, Agent and Out must be set.
type Options struct {
	Kernel string // the kernel image
	// ModulesDir is the kernel's lib/modules/VERSION, with what depmod writes;
	// "" when the kernel has everything built in.
	ModulesDir string
	// KernelVersion is what uname -r will say; "" takes it from the image.
	KernelVersion string
	Agent         string // the static cmd/ironring-agent binary for the machines
	Out           string // directory for the results; made when missing
	Compress      string // "zstd" (also "") or "gzip"
	// Modules are names of modules, or directories ("kernel/drivers/net/phy/")
	// whose modules all go in; nil means DefaultModules. A name that the kernel
	// does not have is an error unless the default is used.
	Modules []string
	// ExtraFiles go in as they are: path in the ramdisk -> file here. A bundle
	// of CAs for https images belongs at etc/ssl/certs/ca-certificates.crt.
	ExtraFiles map[string]string
}

// FileInfo is one file of the result.
type FileInfo struct {
	Size   int64  `json:"size"`
	SHA256 string `json:"sha256"`
}

// Manifest says what a ramdisk is made of. It is written beside it.
type Manifest struct {
	Version       string   `json:"version"` // of this builder
	KernelVersion string   `json:"kernel_version"`
	Compress      string   `json:"compress"`
	Kernel        FileInfo `json:"vmlinuz"`
	Initramfs     FileInfo `json:"initramfs"`
	Agent         FileInfo `json:"agent"`
	// BaseSize is the initramfs without modules.
	BaseSize int64    `json:"base_size"`
	Modules  []string `json:"modules"`
	Extra    []string `json:"extra_files,omitempty"`
}

// Build writes kernel, initramfs and manifest.
func Build(o Options) (*Manifest, error) {
	if o.Compress == "" {
		o.Compress = "zstd"
	}
	for _, f := range []struct{ name, v string }{{"Kernel", o.Kernel}, {"Agent", o.Agent}, {"Out", o.Out}} {
		if f.v == "" {
			return nil, errs.New(errs.Invalid, "ramdisk: %s is not given", f.name)
		}
	}
	kernel, err := os.ReadFile(o.Kernel)
	if err != nil {
		return nil, errs.New(errs.Invalid, "kernel: %w", err)
	}
	if o.KernelVersion, err = checkKernel(kernel, o.KernelVersion); err != nil {
		return nil, err
	}
	agent, err := readAgent(o.Agent)
	if err != nil {
		return nil, err
	}
	var base, mods archive
	man := &Manifest{Version: version.String(), KernelVersion: o.KernelVersion, Compress: o.Compress}
	if o.ModulesDir != "" {
		if man.Modules, err = addModules(&mods, &base, o); err != nil {
			return nil, err
		}
	}
	base.skeleton()
	base.file("init", 0o755, agent)
	for _, p := range sortedKeys(o.ExtraFiles) {
		b, err := os.ReadFile(o.ExtraFiles[p])
		if err != nil {
			return nil, errs.New(errs.Invalid, "extra file: %w", err)
		}
		base.file(p, 0o644, b)
		man.Extra = append(man.Extra, strings.TrimPrefix(filepath.Clean("/"+p), "/"))
	}
	packed, err := base.pack(o.Compress)
	if err != nil {
		return nil, err
	}
	image := packed
	if len(man.Modules) > 0 {
		plain, err := mods.pack("")
		if err != nil {
			return nil, err
		}
		image = append(plain, packed...)
	}
	man.Kernel, man.Initramfs, man.Agent, man.BaseSize = info(kernel), info(image), info(agent), int64(len(packed))
	return man, write(o.Out, kernel, image, man)
}

func info(b []byte) FileInfo {
	sum := sha256.Sum256(b)
	return FileInfo{Size: int64(len(b)), SHA256: hex.EncodeToString(sum[:])}
}

// write puts the results in place. Each file is replaced at once; the manifest
// comes last, so that it never speaks of files that are not there yet.
func write(dir string, kernel, image []byte, man *Manifest) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("ramdisk: %w", err)
	}
	doc, err := json.MarshalIndent(man, "", "  ")
	if err != nil {
		return fmt.Errorf("ramdisk manifest: %w", err)
	}
	files := []struct {
		name string
		data []byte
	}{{KernelFile, kernel}, {InitramfsFile, image}, {ManifestFile, append(doc, '\n')}}
	for _, f := range files {
		if err := os.WriteFile(filepath.Join(dir, f.name+".new"), f.data, 0o644); err != nil {
			return fmt.Errorf("ramdisk: %w", err)
		}
	}
	for _, f := range files {
		if err := os.Rename(filepath.Join(dir, f.name+".new"), filepath.Join(dir, f.name)); err != nil {
			return fmt.Errorf("ramdisk: %w", err)
		}
	}
	return nil
}

// addModules puts the modules into mods, and the lists that /init reads into
// base. It returns their names.
func addModules(mods, base *archive, o Options) ([]string, error) {
	idx, err := kmod.Load(os.DirFS(o.ModulesDir))
	if err != nil {
		return nil, errs.New(errs.Invalid, "modules: %w", err)
	}
	names, err := choose(idx, o.Modules)
	if err != nil {
		return nil, err
	}
	order := idx.Order(names...)
	kept := map[string]string{} // file -> its name in the ramdisk
	dir := "lib/modules/" + o.KernelVersion + "/"
	sort.Strings(order)
	var out []string
	for _, file := range order {
		b, err := readModule(filepath.Join(o.ModulesDir, file))
		if err != nil {
			return nil, err
		}
		z, err := compress("zstd", b)
		if err != nil {
			return nil, err
		}
		kept[file] = file[:strings.Index(file, ".ko")] + ".ko.zst"
		mods.file(dir+kept[file], 0o644, z)
		out = append(out, kmod.Name(file))
	}
	lists, err := subset(o.ModulesDir, kept)
	if err != nil {
		return nil, err
	}
	for _, name := range sortedKeys(lists) {
		base.file(dir+name, 0o644, lists[name])
	}
	sort.Strings(out)
	return out, nil
}

// choose turns names and directories into names.
func choose(idx *kmod.Index, want []string) ([]string, error) {
	strict := want != nil
	if !strict {
		want = DefaultModules()
	}
	var out []string
	for _, w := range want {
		if strings.HasSuffix(w, "/") {
			n := len(out)
			for _, m := range idx.Modules() {
				if strings.HasPrefix(idx.File(m), w) {
					out = append(out, m)
				}
			}
			if strict && len(out) == n {
				return nil, errs.New(errs.Invalid, "the kernel has no modules in %s", w)
			}
			continue
		}
		if strict && !idx.Has(w) {
			return nil, errs.New(errs.Invalid, "the kernel has no module %s", w)
		}
		out = append(out, w)
	}
	return out, nil
}

// subset are depmod's lists, cut down to the modules that are taken along.
func subset(dir string, kept map[string]string) (map[string][]byte, error) {
	names := map[string]bool{}
	for file := range kept {
		names[kmod.Name(file)] = true
	}
	keep := map[string]func(line string) string{
		"modules.dep": func(l string) string {
			file, deps, _ := strings.Cut(l, ":")
			if kept[file] == "" {
				return ""
			}
			out := kept[file] + ":"
			for _, d := range strings.Fields(deps) {
				out += " " + kept[d]
			}
			return out
		},
		"modules.alias": func(l string) string {
			if f := strings.Fields(l); len(f) == 3 && f[0] == "alias" && names[kmod.Name(f[2])] {
				return l
			}
			return ""
		},
		"modules.softdep": func(l string) string {
			if f := strings.Fields(l); len(f) > 2 && f[0] == "softdep" && names[kmod.Name(f[1])] {
				return l
			}
			return ""
		},
	}
	out := map[string][]byte{}
	for name, f := range keep {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) && name != "modules.dep" {
			continue
		}
		if err != nil {
			return nil, errs.New(errs.Invalid, "modules: %w", err)
		}
		var w bytes.Buffer
		for l := range strings.SplitSeq(string(b), "\n") {
			if l = f(strings.TrimSpace(l)); l != "" {
				w.WriteString(l + "\n")
			}
		}
		out[name] = w.Bytes()
	}
	return out, nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	sort.Strings(out)
	return out
}
