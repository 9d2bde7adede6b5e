import type { ApiDeps } from '#api/api-deps.ts'
import { splitDocument } from '#tools/passages.ts'

/** What an API is built with, but for what a test says otherwise: no agents, nobody to poke, Temporal is up. */
export function testDeps(deps: Pick<ApiDeps, 'db'> & Partial<ApiDeps>): ApiDeps {
  return {
    agents: [],
    poke: () => {},
    isTemporalUp: () => Promise.resolve(true),
    splitDocument,
    lostCost: 'maximum',
    providerNames: [],
    approvalAbove: new Map(),
    stripeSecret: undefined,
    allowsPrivateWebhooks: false,
    nowMs: () => Date.now(),
    ...deps,
  }
}
