import { gatewayCatalog as catalogOf } from './gateway-catalog.ts'

const STEADY = 'sandbox-steady'

/** One route each, which shows what the model's name says. */
export const gatewayCatalog = catalogOf({
  steady: [{ name: 'steady', upstreamModel: STEADY, capabilities: { vision: true } }],
  counted: [{ name: 'counted', upstreamModel: STEADY, tokenizer: 'o200k_base' }],
  seldom: [{ name: 'seldom', upstreamModel: STEADY, limits: { requestsPerMinute: 1 } }],
  thinker: [{ name: 'thinker', upstreamModel: 'sandbox-thinker', capabilities: { reasoning: true } }],
  cut: [{ name: 'cut', upstreamModel: `${STEADY}:cut-3` }],
  long: [{ name: 'long', upstreamModel: `${STEADY}:context` }],
  short: [{ name: 'short', upstreamModel: STEADY, tokenizer: 'o200k_base', contextTokens: 10 }],
  filtered: [{ name: 'filtered', upstreamModel: `${STEADY}:filter` }],
  paced: [{ name: 'paced', upstreamModel: `${STEADY}:pace-200` }],
})
