import type { ApiDeps } from '#api/api-deps.ts'
import { makeSecretsKey, secretBox } from '#db/secret-box.ts'
import { splitDocument } from '#tools/passages.ts'

/** The key of all parts of a test that encrypt or read secrets. */
export const testSecretsKey = makeSecretsKey()
export const testSecrets = secretBox(testSecretsKey)

/** What an API is built with, but for what a test says otherwise: no agents, nobody to poke, Temporal is up. */
export function testDeps(deps: Pick<ApiDeps, 'db'> & Partial<ApiDeps>): ApiDeps {
  return {
    agents: [],
    poke: () => {},
    isTemporalUp: () => Promise.resolve(true),
    splitDocument,
    lostCost: 'maximum',
    fixedProviders: [],
    secrets: testSecrets,
    approvalAbove: new Map(),
    stripeSecret: undefined,
    allowsPrivateWebhooks: false,
    nowMs: () => Date.now(),
    ...deps,
  }
}
