import { z } from 'zod'
import { MAX_TOKENS_FIELDS, PROVIDER_KINDS, type MaxTokensField, type ProviderKind } from './names.ts'

/** A provider as it is configured. */
export interface ProviderSettings {
  readonly name: string
  readonly kind: ProviderKind
  readonly baseUrl: string
  readonly apiKey: string
  readonly maxTokensField?: MaxTokensField | undefined
  readonly promptCache?: boolean | undefined
}

/** Through which proxies providers are asked, by the scheme of their addresses; left out: directly. */
export interface ProxySettings {
  readonly http?: string | undefined
  readonly https?: string | undefined
  /** Hosts that are asked directly, with commas between them. */
  readonly except?: string | undefined
}

/** Any address, those of private networks too: who configures providers runs what stands there. */
export const baseUrlSchema = z
  .url({ protocol: /^https?$/ })
  .max(2_000)
  .regex(/^[\x21-\x7e]+$/, 'ASCII without spaces: encode the others with %')
  .refine(isPlainAddress, 'an address without a name, a password or a fragment: the key is `apiKey`')
  .refine(hasNoSecret, 'its query has what opens something, and an address is shown: the key is `apiKey`')

export const apiKeySchema = z
  .string()
  .max(4_096)
  .regex(/^[\x21-\x7e]+$/, 'printable ASCII without spaces: it goes into a header')

export const providerKindSchema = z.enum(PROVIDER_KINDS)
/** Of OpenAI-compatible providers; left out: `max_completion_tokens` at OpenAI and Azure, `max_tokens` elsewhere. */
export const maxTokensFieldSchema = z.enum(MAX_TOKENS_FIELDS)

/** A provider in the environment. */
export const providerSettingsSchema = z
  .strictObject({
    name: z.string().min(1),
    kind: providerKindSchema.default('openai'),
    baseUrl: baseUrlSchema,
    apiKey: apiKeySchema,
    maxTokensField: maxTokensFieldSchema.optional(),
    /** Of Anthropic: whether prompts are written to its cache. */
    promptCache: z.boolean().optional(),
  })
  .superRefine((settings, context) => {
    for (const { field, message } of misplacedOptions(settings)) {
      context.addIssue({ code: 'custom', path: [field], message })
    }
  })

/** Options that are set and mean nothing for the provider's kind. */
export function misplacedOptions(
  settings: Pick<ProviderSettings, 'kind' | 'maxTokensField' | 'promptCache'>,
): readonly { readonly field: 'maxTokensField' | 'promptCache'; readonly message: string }[] {
  const { kind } = settings
  const field = kind === 'anthropic' ? 'maxTokensField' : 'promptCache'
  return settings[field] === undefined ? [] : [{ field, message: `means nothing for kind ${kind}: leave it out` }]
}

/** Names under which services take a key in the query: those that are told are of Google, Azure, and of many. */
const SECRET_PARAMETERS =
  /^(?:x-)?(?:(?:api|access|auth|subscription|client|private|ocp-apim-subscription)[-_]?)?(?:key|token|secret|password|signature|sig|code)$/i

function hasNoSecret(address: string): boolean {
  // That it is an address is checked beside this.
  if (!/^https?:\/\//i.test(address)) return true
  const [, query = ''] = address.split(/[?#]/)
  return !query.split('&').some((pair) => SECRET_PARAMETERS.test(nameOf(pair)))
}

/** As it is read behind the address; what cannot be decoded stands as it is. */
function nameOf(pair: string): string {
  const [name = ''] = pair.split('=')
  try {
    return decodeURIComponent(name.replaceAll('+', ' '))
  } catch {
    return name
  }
}

/** An address is shown and logged; what opens something is not part of it. */
function isPlainAddress(address: string): boolean {
  return !/^https?:\/\/[^/?#]*@/i.test(address) && !address.includes('#')
}
