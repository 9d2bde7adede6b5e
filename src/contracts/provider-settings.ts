import type { MaxTokensField, ProviderKind } from './names.ts'

/** A provider as it is configured. */
export interface ProviderSettings {
  readonly name: string
  readonly kind: ProviderKind
  readonly baseUrl: string
  readonly apiKey: string
  readonly maxTokensField?: MaxTokensField | undefined
  readonly promptCache?: boolean | undefined
}
