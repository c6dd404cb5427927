{
  description = "OpenAnomaly: anomaly scores for Prometheus metrics";

  inputs.nixpkgs.url = "github:NixOS/nixpkgs/nixos-26.05";

  outputs = { self, nixpkgs }:
    let
      systems = [ "x86_64-linux" "aarch64-linux" "x86_64-darwin" "aarch64-darwin" ];
      each = make: builtins.listToAttrs
        (map (system: { name = system; value = make nixpkgs.legacyPackages.${system}; }) systems);
      version = (builtins.fromTOML (builtins.readFile ./pyproject.toml)).project.version;

      # Dependencies are those of uv.lock, fetched by uv on the first run into the user's cache: wheels of
      # onnxruntime and others are what we test with, and nixpkgs has no faust-streaming.
      package = pkgs: pkgs.writeShellApplication {
        name = "openanomaly";
        runtimeInputs = [ pkgs.uv pkgs.python312 ];
        text = ''
          export UV_PYTHON_DOWNLOADS=never UV_PYTHON=${pkgs.python312}/bin/python3
          export LD_LIBRARY_PATH=${pkgs.lib.makeLibraryPath [ pkgs.stdenv.cc.cc.lib ]}''${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
          export UV_PROJECT_ENVIRONMENT="''${XDG_CACHE_HOME:-$HOME/.cache}/openanomaly/${version}-${baseNameOf self.outPath}"
          extras=()
          for extra in ''${EXTRAS:-fast}; do extras+=(--extra "$extra"); done
          exec uv run --quiet --frozen --no-dev --no-editable --project ${self} "''${extras[@]}" openanomaly "$@"
        '';
      };
    in
    {
      packages = each (pkgs: rec {
        openanomaly = package pkgs;
        default = openanomaly;
      });

      apps = each (pkgs: rec {
        openanomaly = { type = "app"; program = "${package pkgs}/bin/openanomaly"; };
        default = openanomaly;
      });

      devShells = each (pkgs: {
        default = pkgs.mkShell {
          packages = with pkgs; [
            python312
            uv
            curl
            jdk17_headless # Kafka and a MongoDB server, in the tests
            maven
            go # Prometheus 3, for the commands that need remote-write 2.0
            prometheus
            prometheus.cli # promtool
            prometheus-node-exporter
            victoriametrics
            kubernetes-helm
            nix
          ] ++ lib.optionals stdenv.isLinux [
            chromium # the status page, in the tests
            chromedriver
            systemd # systemd-analyze
          ];
          # Wheels of numpy and others link against it.
          LD_LIBRARY_PATH = pkgs.lib.makeLibraryPath [ pkgs.stdenv.cc.cc.lib ];
          UV_PYTHON_DOWNLOADS = "never";
        };
      });
    };
}
