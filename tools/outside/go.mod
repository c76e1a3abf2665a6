// Only here so that this program is no package of the product: tools/outside/build
// compiles it in a module made on the spot.
module example.org/outside

go 1.26.0
