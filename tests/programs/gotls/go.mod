module gotls

go 1.13
