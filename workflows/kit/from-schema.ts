/**
 * The type of the values that a JSON Schema allows, for the part of JSON Schema that agents use: objects with
 * properties, arrays, strings, numbers, integers, booleans. What it does not know is `unknown`.
 */
export type FromSchema<S> = S extends { readonly enum: readonly (infer Value)[] }
  ? Value
  : S extends { readonly type: 'string' }
    ? string
    : S extends { readonly type: 'integer' | 'number' }
      ? number
      : S extends { readonly type: 'boolean' }
        ? boolean
        : S extends { readonly type: 'array'; readonly items: infer Item }
          ? readonly FromSchema<Item>[]
          : S extends { readonly type: 'object'; readonly properties: infer Properties }
            ? FromProperties<Properties, RequiredKeys<S>>
            : unknown

type RequiredKeys<S> = S extends { readonly required: readonly (infer Key)[] } ? Key : never

type FromProperties<Properties, Required> = {
  readonly [Key in keyof Properties as Key extends Required ? Key : never]: FromSchema<Properties[Key]>
} & {
  readonly [Key in keyof Properties as Key extends Required ? never : Key]?: FromSchema<Properties[Key]>
}
