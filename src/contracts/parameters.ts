/**
 * Members of requests that are never handed on, with the reason: they are billed apart from the tokens that a hold covers,
 * send the request elsewhere than to its route, or are what Purser itself sets. No route can be said to take them.
 */
export const UNPRICED_PARAMETERS: Readonly<Record<string, string>> = Object.freeze({
  audio: 'Audio is not supported.',
  best_of: 'best_of bills answers that nobody sees, and is not supported: send n.',
  enable_search: "The provider's own web search has a price of its own, and is not supported.",
  functions: 'functions is deprecated: send tools.',
  function_call: 'function_call is deprecated: send tool_choice.',
  logprobs: 'Log probabilities are not supported.',
  models: 'Which models and providers may answer is what the catalog says.',
  plugins: 'Plugins of a provider have prices of their own, and are not supported.',
  prediction: 'Predicted outputs are billed by what they discard, and are not supported.',
  provider: 'Which models and providers may answer is what the catalog says.',
  route: 'Which models and providers may answer is what the catalog says.',
  search_parameters: "The provider's own web search has a price of its own, and is not supported.",
  top_logprobs: 'Log probabilities are not supported.',
  use_beam_search: 'Beam search bills answers that nobody sees, and is not supported.',
  web_search_options: "The provider's own web search has a price of its own, and is not supported.",
})

/** Members that the engine sets from what it has planned, and others that decide a price. */
const OWN = [
  'model',
  'messages',
  'input',
  'max_tokens',
  'max_completion_tokens',
  'max_output_tokens',
  'modalities',
  'n',
  'parallel_tool_calls',
  'service_tier',
  'speed',
  'store',
  'stream',
  'stream_options',
  'tools',
]

export const PARAMETER_NAME = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/

/** Whether a route may be said to take a member of requests under this name. */
export function mayBeHandedOn(name: string): boolean {
  return !Object.hasOwn(UNPRICED_PARAMETERS, name) && !OWN.includes(name)
}
