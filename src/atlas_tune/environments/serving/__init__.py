"""Our environments behind HTTP, in AgentGym's dialect: ``atlas-tune serve-env``."""
