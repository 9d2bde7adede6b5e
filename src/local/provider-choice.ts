import { parseDecimal } from '#domain/money.ts'
import type { CatalogDocument } from '#contracts/catalog.ts'
import { sandboxCatalog, singleModelCatalog } from './catalog.ts'

/** The models of a stack: the sandbox's, or those of a provider whose key is in the environment. */
export type ProviderChoice =
  | { readonly kind: 'sandbox'; readonly catalog: CatalogDocument }
  | {
      readonly kind: 'openai' | 'anthropic'
      readonly catalog: CatalogDocument
      readonly baseUrl: string
      readonly apiKey: string
      readonly upstreamModel: string
    }

/** The first of these whose key is set is used. */
const PROVIDERS = [
  { kind: 'openai', key: 'OPENAI_API_KEY', url: 'OPENAI_BASE_URL', usualUrl: 'https://api.openai.com/v1' },
  { kind: 'anthropic', key: 'ANTHROPIC_API_KEY', url: 'ANTHROPIC_BASE_URL', usualUrl: 'https://api.anthropic.com' },
] as const
const PRICES = ['PURSER_PROVIDER_INPUT_PRICE', 'PURSER_PROVIDER_OUTPUT_PRICE'] as const

/**
 * A key alone is not enough: nothing runs unpriced, and a price list built in here would soon be wrong.
 * @throws when a key is given without a model and prices
 */
export function chooseProvider(env: NodeJS.ProcessEnv): ProviderChoice {
  const chosen = PROVIDERS.find(({ key }) => env[key])
  const apiKey = chosen && env[chosen.key]
  if (!chosen || !apiKey) return { kind: 'sandbox', catalog: sandboxCatalog }
  const upstreamModel = env['PURSER_PROVIDER_MODEL']
  const [input, output] = PRICES.map((name) => env[name])
  const missing = ['PURSER_PROVIDER_MODEL', ...PRICES].filter((name) => !env[name])
  if (!upstreamModel || !input || !output) {
    throw new Error(
      `${chosen.key} is set, and without a price nothing is called: set ${missing.join(', ')} as well ` +
        `(the upstream model, and USD per 1,000,000 tokens), or unset ${chosen.key} to use the sandbox provider.`,
    )
  }
  const wrong = PRICES.find((name) => !parseDecimal(env[name] ?? '').ok)
  if (wrong !== undefined) {
    throw new Error(`${wrong} is not a price: write USD per 1,000,000 tokens as a decimal, such as 0.40.`)
  }
  const { kind, url, usualUrl } = chosen
  const catalog = singleModelCatalog({ provider: kind, upstreamModel, input, output })
  return { kind, catalog, baseUrl: env[url] || usualUrl, apiKey, upstreamModel }
}
