"""The paper's selector: an oracle language model names the critical steps of a trajectory."""

from atlas_tune.select.oracle.selector import OracleOptions, OracleSelector

__all__ = ["OracleOptions", "OracleSelector"]
