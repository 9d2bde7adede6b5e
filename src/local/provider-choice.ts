import { parseDecimal } from '#domain/money.ts'
import type { CatalogDocument } from '#contracts/catalog.ts'
import { sandboxCatalog, singleModelCatalog } from './catalog.ts'

/** The models of a stack: the sandbox's, or those of a provider whose key is in the environment. */
export type ProviderChoice =
  | { readonly kind: 'sandbox'; readonly catalog: CatalogDocument }
  | {
      readonly kind: 'openai'
      readonly catalog: CatalogDocument
      readonly baseUrl: string
      readonly apiKey: string
      readonly upstreamModel: string
    }

const DEFAULT_BASE_URL = 'https://api.openai.com/v1'
const PRICES = ['PURSER_PROVIDER_INPUT_PRICE', 'PURSER_PROVIDER_OUTPUT_PRICE'] as const

/**
 * A key alone is not enough: nothing runs unpriced, and a price list built in here would soon be wrong.
 * @throws when a key is given without a model and prices
 */
export function chooseProvider(env: NodeJS.ProcessEnv): ProviderChoice {
  const apiKey = env['OPENAI_API_KEY']
  if (!apiKey) return { kind: 'sandbox', catalog: sandboxCatalog }
  const upstreamModel = env['PURSER_PROVIDER_MODEL']
  const [input, output] = PRICES.map((name) => env[name])
  const missing = ['PURSER_PROVIDER_MODEL', ...PRICES].filter((name) => !env[name])
  if (!upstreamModel || !input || !output) {
    throw new Error(
      `OPENAI_API_KEY is set, and without a price nothing is called: set ${missing.join(', ')} as well ` +
        '(the upstream model, and USD per 1,000,000 tokens), or unset OPENAI_API_KEY to use the sandbox provider.',
    )
  }
  const wrong = PRICES.find((name) => !parseDecimal(env[name] ?? '').ok)
  if (wrong !== undefined) {
    throw new Error(`${wrong} is not a price: write USD per 1,000,000 tokens as a decimal, such as 0.40.`)
  }
  const catalog = singleModelCatalog({ provider: 'openai', upstreamModel, input, output })
  return { kind: 'openai', catalog, baseUrl: env['OPENAI_BASE_URL'] || DEFAULT_BASE_URL, apiKey, upstreamModel }
}
