{
  description = "OpenAnomaly: a shell with every tool that its commands need";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-unstable";

  outputs = { nixpkgs, ... }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      each = make: builtins.listToAttrs
        (map (system: { name = system; value = make nixpkgs.legacyPackages.${system}; }) systems);
    in
    {
      devShells = each (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [
            python312
            uv
            jdk17_headless # Kafka and a MongoDB server, in the tests
            maven
            go # Prometheus 3, for the commands that need remote-write 2.0
            prometheus
            prometheus-node-exporter
            victoriametrics
            chromium # the status page, in the tests
            chromedriver
            kubernetes-helm
          ];
          # Wheels of numpy and others link against it.
          LD_LIBRARY_PATH = pkgs.lib.makeLibraryPath [ pkgs.stdenv.cc.cc.lib ];
          UV_PYTHON_DOWNLOADS = "never";
        };
      });
    };
}
