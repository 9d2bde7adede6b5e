/**
 * What runs can be searched by in Temporal; made at start-up where they are missing. A server may know none of them (no
 * permission to make them): then runs are started without, so a workflow sets one only if it was started with it.
 */
export const SEARCH_ATTRIBUTES = {
  project: 'PurserProject',
  agent: 'PurserAgent',
  model: 'PurserModel',
  /** A run's state: of its start, and from then on as its workflow says. */
  state: 'PurserState',
} as const
