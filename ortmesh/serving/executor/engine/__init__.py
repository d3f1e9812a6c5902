"""The engine executor: texts that grow side by side, a token a step, admitted and ended at any. Stage: executor."""
